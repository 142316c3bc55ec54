# env: WHATAP_IGNORE_WHATAP_STDOUT=true
# command: {python} -s -E main.py
from __future__ import print_function
import sys
print(sys.flags.no_user_site, sys.path)
