from __future__ import print_function
import logging
import sqlite3
import threading
try:
    from http.client import HTTPConnection
except ImportError:
    from httplib import HTTPConnection


class Cursor(sqlite3.Cursor):
    def execute(self, *arguments):
        print('execute', arguments)
        return super(Cursor, self).execute(*arguments)


class Connection(HTTPConnection):
    def request(self, *arguments, **named):
        print('request', arguments, named)


class Thread(threading.Thread):
    def start(self):
        print('start')
        super(Thread, self).start()


connection = sqlite3.connect(':memory:')
cursor = connection.cursor(Cursor)
print(type(cursor).__name__, cursor.execute('select 1').fetchall(), Cursor.__mro__[1].__name__)
Connection('nowhere').request('GET', '/', headers={})
thread = Thread(target=print, args=('ran',))
thread.start()
thread.join()
