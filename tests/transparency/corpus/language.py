# env: LC_ALL=C
from __future__ import print_function
import locale
import sys
print(sys.getfilesystemencoding(), sys.stdout.encoding, sys.stdout.errors, sys.getdefaultencoding(), locale.getlocale())
print(locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(False))
import os
print([name for name in ('LC_CTYPE', 'LC_ALL', 'LANG') if name in os.environ])
