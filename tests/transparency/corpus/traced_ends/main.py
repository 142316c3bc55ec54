# env: WHATAP_HOOK_SERVICE_PATTERNS=work:*
"""Six ways to end in the middle of a transaction."""
from __future__ import print_function
import os
import signal
import subprocess
import sys
ways = {
    'returns': 'lambda: 1', 'exits': 'lambda: sys.exit(4)', 'raises': 'lambda: 1 // 0', 'leaves': 'lambda: os._exit(5)',
    'killed': 'lambda: os.kill(os.getpid(), signal.SIGKILL)', 'becomes': 'lambda: os.execv("/bin/sh", ["sh", "-c", "exit 6"])',
}
for name in sorted(ways):
    process = subprocess.Popen([sys.executable, '-c', 'import atexit, os, signal, sys, work; atexit.register(print, "atexit") if sys.version_info > (3,) else None\n'
                                'work.add(1, 2); work.within(%s)' % ways[name]], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    print(name, process.returncode, out, err.strip().splitlines()[-1:])
