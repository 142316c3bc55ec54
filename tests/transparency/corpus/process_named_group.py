# command: sh -c 'ulimit -f 100; ulimit -n 64; umask 077; exec {python} main.py'
from __future__ import print_function
import os
import resource
print(resource.getrlimit(resource.RLIMIT_FSIZE), resource.getrlimit(resource.RLIMIT_NOFILE))
open('made', 'w').close()
print(oct(os.stat('made').st_mode))
import signal
print(signal.getsignal(signal.SIGXFSZ))
