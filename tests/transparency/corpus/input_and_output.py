# stdin: first\nsecond\nthird
from __future__ import print_function
import sys
try:
    input = raw_input
except NameError:
    pass
print(repr(input('asked> ')), repr(sys.stdin.readline()), repr(sys.stdin.read()), repr(sys.stdin.read()))
sys.stdout.write('no end of line')
sys.stderr.write('err')
