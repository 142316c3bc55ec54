# command: sh -c '{python} main.py | head -n 1'
import sys
try:
    for number in range(100000):
        sys.stdout.write('%d\n' % number)
except (IOError, OSError):
    sys.stderr.write('the pipe is broken\n')
    sys.stderr.flush()
    import os
    os._exit(1)
