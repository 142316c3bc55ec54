from __future__ import print_function
import atexit
import os
import sys
import threading
for number in range(3):
    atexit.register(print, 'registered', number)
atexit.register(lambda: (print('last registered, first run'), sys.stdout.flush()))


class Last(object):
    def __del__(self, write=os.write):
        write(1, b'deleted at the end\n')


kept = Last()
threading.Timer(0.05, print, ['a timer is waited for']).start()
print('main is over')
