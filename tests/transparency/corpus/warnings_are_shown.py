# command: {python} -W always -b main.py
from __future__ import print_function
import sqlite3
import warnings
warnings.warn('mine', DeprecationWarning)
open('main.py')
print(warnings.filters)
