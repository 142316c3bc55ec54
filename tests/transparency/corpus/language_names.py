# command: sh -c 'mkdir "ünï cödé" && cp main.py "ünï cödé/mäin.py" && cd "ünï cödé" && exec {python} "mäin.py"'
# python: 3.7
import os
import sqlite3
import sys
print(ascii(sys.argv), ascii(os.getcwd().rsplit('/', 1)[-1]), ascii(__file__.rsplit('/', 1)[-1]), os.listdir('.') == sys.argv)
print(sqlite3.connect(':memory:').execute("select 'é'").fetchall())
