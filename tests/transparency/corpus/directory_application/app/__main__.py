from __future__ import print_function
import sys
print(sys.argv, __package__, sys.path[0].rsplit('/', 1)[-1])
