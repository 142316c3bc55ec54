"""A module that was not there when it was first asked for."""
from __future__ import print_function
import sys
try:
    import psycopg2
except ImportError as error:
    print(error)
with open('psycopg2.py', 'w') as file:
    file.write('class Cursor(object):\n    pass\n\nWHO = "mine"\n')
if sys.version_info > (3, 3):
    import importlib
    importlib.invalidate_caches()
import psycopg2
print(psycopg2.WHO, sorted(name for name in vars(psycopg2) if not name.startswith('__')), sorted(vars(psycopg2.Cursor)))
