# env: PYTHONIOENCODING=latin-1:backslashreplace
# stdin: \xe9\n
from __future__ import print_function
import sys
print(sys.stdin.readline() == u'\xe9\n' or 'bytes')
print(u'\xe9 \u20ac')
