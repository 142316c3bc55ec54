from __future__ import print_function
import os
import sys
turn = int(sys.argv[1]) if len(sys.argv) > 1 else 0
print('turn', turn, os.environ.get('PYTHONPATH', '').count('/whatap/bootstrap') <= 1)
sys.stdout.flush()
if turn < 3:
    os.execv(sys.executable, [sys.executable, 'main.py', str(turn + 1)])
