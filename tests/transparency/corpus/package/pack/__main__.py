from __future__ import print_function
import sys
from pack import part
print(__name__, __package__, sys.argv[1:], part.NAME)
