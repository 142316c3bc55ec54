"""The program's own patches of what we patch: on top of ours, and taken back."""
from __future__ import print_function
import logging
import sqlite3
import threading
calls = []
start = threading.Thread.start


def mine(self):
    calls.append('start')
    return start(self)


threading.Thread.start = mine
thread = threading.Thread(target=calls.append, args=('ran',))
thread.start()
thread.join()
threading.Thread.start = start
connect = sqlite3.connect
sqlite3.connect = lambda *arguments: calls.append('connect') or connect(*arguments)
sqlite3.connect(':memory:').execute('select 1')
sqlite3.connect = connect


class Logger(logging.Logger):
    def handle(self, record):
        calls.append(record.getMessage())


logging.setLoggerClass(Logger)
logging.getLogger('patched').error('handled')
print(calls)
