# command: sh -c 'ln -s {python} mine && exec ./mine main.py'
from __future__ import print_function
import sys
print(sys.executable.rsplit('/', 1)[-1], sys.version_info[:2], sys.prefix)
