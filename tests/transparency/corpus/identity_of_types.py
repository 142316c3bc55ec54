"""What libraries make is what they make without us."""
from __future__ import print_function
import sqlite3
import threading
import logging
connection = sqlite3.connect(':memory:')
cursor = connection.cursor()
print([type(thing).__name__ for thing in (connection, cursor, connection.execute('select 1'))], isinstance(connection, sqlite3.Connection))
print(sqlite3.connect.__name__, sqlite3.connect.__module__, sqlite3.Connection.__name__, sqlite3.Connection.__module__)
print(sorted(n for n in dir(sqlite3.Connection) if not n.startswith('_')), callable(sqlite3.connect))


class Holder(object):
    connect = sqlite3.connect


print(Holder().connect(':memory:').execute('select 4').fetchone())


class Mine(sqlite3.Connection):
    def cursor(self, *arguments):
        print('my cursor')
        return super(Mine, self).cursor(*arguments)


own = sqlite3.connect(':memory:', factory=Mine)
print(type(own).__name__, type(own) is Mine, own.cursor().execute('select 5').fetchone(), own.execute('select 6').fetchone())
with own as entered:
    print(entered is own)
print(cursor.execute('select 1') is cursor, cursor.connection is connection)
print(type(threading.Thread()), type(logging.getLogger()), logging.Logger.__mro__)
