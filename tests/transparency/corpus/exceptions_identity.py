"""What is raised comes out: the same object, with the same traceback."""
from __future__ import print_function
import sqlite3
import sys


class Mine(Exception):
    pass


problem = Mine('mine')


def function(value):
    raise problem


connection = sqlite3.connect(':memory:')
connection.create_function('f', 1, function)
try:
    connection.execute('select f(1)').fetchall()
except sqlite3.OperationalError as error:
    print(type(error), error, getattr(error, '__cause__', None), getattr(error, '__context__', None))
for statement, values in [('bad', ()), ('select ?', ()), ('select 1; select 2', ()), ('select ?', (object(),)), ('select ?', 5)]:
    try:
        print(connection.execute(statement, values).fetchall())
    except Exception as error:
        names = []
        trace = sys.exc_info()[2]
        while trace.tb_next:
            trace = trace.tb_next
        print(statement, type(error).__name__, error.args and type(error.args[0]).__name__)
