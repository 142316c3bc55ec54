# fails: it is not caught
import sqlite3
connection = sqlite3.connect(':memory:')
connection.execute('select * from nowhere')
