"""Nobody keeps what the program passed, raised or returned."""
from __future__ import print_function
import logging
import sqlite3
import sys
import threading
import weakref


class Mine(Exception):
    pass


def refer(thing, found):
    found.append(weakref.ref(thing))
    return thing


found = []
connection = sqlite3.connect(':memory:')
connection.create_function('fail', 0, lambda: 1 // 0)


class Text(str):
    pass


if sys.version_info[0] > 2:
    connection.execute(refer(Text('select 1'), found)).fetchall()
try:
    raise refer(Mine(), found)
except Mine:
    pass
logging.getLogger('x').addHandler(logging.StreamHandler(open('/dev/null', 'w')))
logging.getLogger('x').error('%s', refer(Mine(), found))
thread = threading.Thread(target=lambda thing: None, args=(refer(Mine(), found),))
thread.start()
thread.join()
del thread
if sys.version_info[0] == 2:
    sys.exc_clear()
print([reference() for reference in found])
