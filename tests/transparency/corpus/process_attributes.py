from __future__ import print_function
import os
import resource
import threading
print(os.getcwd(), oct(os.umask(0o22)), os.nice(0), os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid())
for name in sorted(name for name in dir(resource) if name.startswith('RLIMIT_')):
    print(name, resource.getrlimit(getattr(resource, name)))
print([thread.name for thread in threading.enumerate()], len(os.listdir('/proc/self/task')))
print(os.isatty(0), os.isatty(1), os.isatty(2))
with open('/proc/self/status') as status:
    print([line.split() for line in status if line.startswith(('NoNewPrivs', 'Seccomp:', 'Groups', 'Uid', 'Threads'))])
