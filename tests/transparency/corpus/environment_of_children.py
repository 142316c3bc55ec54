from __future__ import print_function
import subprocess
import sys
show = 'import os; print(sorted(n for n in os.environ if n != "PYTHONPATH" and not n.startswith("WHATAP_")), len(os.environ) < 60)'
print(subprocess.check_output([sys.executable, '-c', show]))
# An environment that the program passes is passed as it is.
print(subprocess.check_output(['/usr/bin/env'], env={'ONLY': 'this'}))
print(subprocess.check_output([sys.executable, '-c', 'import os; print(sorted(os.environ))'], env={'ONLY': 'this', 'LC_CTYPE': 'C.UTF-8'}))
