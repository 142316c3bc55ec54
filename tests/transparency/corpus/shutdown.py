from __future__ import print_function
import sys
import threading


class Last(object):
    def __init__(self, name):
        self.name = name

    def __del__(self):
        sys.stderr.write('deleted %s\n' % self.name) if sys and sys.stderr else None


one = Last('global')
sys.kept = Last('kept in sys')
cycle = Last('cycle')
cycle.itself = cycle
thread = threading.Thread(target=threading.Event().wait)
thread.daemon = True
thread.start()
print('over')
