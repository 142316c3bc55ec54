from __future__ import print_function
import sys
for name in ('nowhere', 'json.nowhere', 'sqlite3.nowhere.deeper', 'flask', 'django', 'psycopg2'):
    try:
        __import__(name)
        print(name, 'is there')
    except ImportError as error:
        print(name, type(error).__name__, error, getattr(error, 'name', None), getattr(error, 'path', None) is None)
print(sorted(name for name in sys.modules if name.startswith(('nowhere', 'flask', 'django'))))
