# command: {python} -OO -B main.py
"""No documentation, no assertions."""
from __future__ import print_function
import sys
assert False
print(__doc__, __debug__, sys.dont_write_bytecode, sys.flags.optimize)
