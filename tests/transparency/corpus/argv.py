# command: {python} main.py 'two words' '' --option=1 -x -- ünïcode
from __future__ import print_function
import sys
print(sys.argv)
print(sys.flags, sys.executable)
