# env: WHATAP_HOOK_SERVICE_PATTERNS=work:*
"""Transactions before, in and around forks; the children's status, and nobody's child but the program's own."""
from __future__ import print_function
import os
import subprocess
import sys
import work
print(work.add(1, 2))
sys.stdout.flush()
for status in range(3):
    pid = os.fork()
    if pid == 0:
        os._exit(work.add(status, 1))
    print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
print(work.within(lambda: os.WEXITSTATUS(os.waitpid(work.forked(7), 0)[1])))
print(work.within(lambda: subprocess.check_output([sys.executable, '-c', 'print(6 * 7)'])))
print(work.within(lambda: subprocess.check_output(['/usr/bin/env'], env={'ONLY': 'this'})))
try:
    os.wait()
except OSError as error:
    print(error)
