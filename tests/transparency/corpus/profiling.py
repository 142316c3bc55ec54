# command: sh -c '{python} -m cProfile -s name main.py | grep -c "main.py"'
import sqlite3


def work():
    return sqlite3.connect(':memory:').execute('select 1').fetchall()


for _ in range(3):
    work()
