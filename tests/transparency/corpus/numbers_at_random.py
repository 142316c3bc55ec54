# env: PYTHONHASHSEED=7
"""The module's own sequence is the program's."""
from __future__ import print_function
import random
random.seed(42)
first = [random.random() for _ in range(3)]
import sqlite3, logging, threading
sqlite3.connect(':memory:').execute('select 1')
print(first, random.random(), hash('text'), random.getstate()[1][:2])
print(sorted({'a', 'b', 'c'}), list({'b', 'a', 'c'}))
