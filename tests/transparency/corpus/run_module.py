# command: {python} -m main a b
from __future__ import print_function
import sys
print(__name__, sys.argv, __package__, sys.path[0])
