from __future__ import print_function
import sys
import helper
print(sys.argv, sys.path[0].rsplit('/', 1)[-1], helper.__file__.rsplit('/', 2)[-2:], type(__loader__).__name__)
