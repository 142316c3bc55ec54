"""What daemons do at their start: every descriptor is closed, also those that they did not open."""
from __future__ import print_function
import gc
import os
import sqlite3
connection = sqlite3.connect(':memory:')
connection.execute('select 1')
os.closerange(3, 256)
mine = [os.open('/dev/null', os.O_RDONLY) for _ in range(8)]
gc.collect()
print(mine, [os.fstat(number).st_rdev for number in mine])
