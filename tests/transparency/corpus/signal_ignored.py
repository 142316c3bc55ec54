# command: sh -c 'trap "" INT HUP; exec {python} main.py'
from __future__ import print_function
import os
import signal
print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGPIPE))
os.kill(os.getpid(), signal.SIGINT)
print('still here')
with open('/proc/self/status') as status:
    print([line.split()[1] for line in status if line.startswith(('SigBlk', 'SigIgn', 'SigCgt'))])
