from __future__ import print_function
import os
import sys
import threading
print('before', threading.active_count())
sys.stdout.flush()
for status in (0, 4):
    pid = os.fork()
    if pid == 0:
        print('child', threading.active_count())
        sys.exit(status)
    print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
    sys.stdout.flush()
