# env: WHATAP_HOOK_SERVICE_PATTERNS=work:*
"""All descriptors are closed in the middle of a transaction, and others take their numbers."""
from __future__ import print_function
import gc
import os
import work
print(work.add(1, 2))


def close_all():
    os.closerange(3, 256)
    return [os.open('/dev/null', os.O_RDONLY) for _ in range(8)]


mine = work.within(close_all)
print(mine)
for number in range(20):
    work.add(number, 1)
gc.collect()
print([os.fstat(number).st_rdev == os.stat('/dev/null').st_rdev for number in mine])
for number in mine:
    os.close(number)
