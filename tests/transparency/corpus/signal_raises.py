"""Timeouts that are exceptions from a signal's handler, while libraries that we know are at work."""
from __future__ import print_function
import json
import signal
import sqlite3
import time


class Late(BaseException):
    pass


def raise_late(*_):
    raise Late()


signal.signal(signal.SIGALRM, raise_late)
connection = sqlite3.connect(':memory:')
caught = 0
until = time.time() + 30
while caught < 30 and time.time() < until:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        while True:
            connection.execute('select 1').fetchone()
            json.dumps([1, 2, 3])
    except Late:
        caught += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
print(caught)
