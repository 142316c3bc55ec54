# env: WHATAP_IGNORE_WHATAP_STDOUT=true
# command: {python} -S main.py
from __future__ import print_function
import sys
print(sorted(name for name in sys.modules if 'site' in name), sys.flags.no_site)
