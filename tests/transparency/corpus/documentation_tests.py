# command: {python} -m doctest main.py -v
"""
>>> import sqlite3
>>> sqlite3.connect(':memory:').execute('select 1').fetchall()
[(1,)]
>>> 1 // 0
Traceback (most recent call last):
ZeroDivisionError: integer division or modulo by zero
"""
