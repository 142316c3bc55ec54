# env: WHATAP_HOOK_SERVICE_PATTERNS=work:*,work:Shop.*
"""Functions that are transactions: what they return and raise, and what they are."""
from __future__ import print_function
import sys
import traceback
import work
print(work.add(1, b=2), work.add.__name__, work.add.__doc__, work.add.__module__)
print(list(work.numbers(3)))
given = work.numbers(5)
next(given)
given.close()
for bad in (work.fail, work.leave, work.interrupt):
    try:
        bad()
    except BaseException as error:
        names = [name for _, _, name, _ in traceback.extract_tb(sys.exc_info()[2])]
        print(type(error).__name__, error.args, names[0], names[-1])
try:
    work.add()
except TypeError as error:
    print('TypeError', 'add()' in str(error))
print(work.Shop().buy(3), work.Shop.kind(), work.Shop.static(), sorted(vars(work.Shop())))
