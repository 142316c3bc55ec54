from __future__ import print_function
import datetime
import sqlite3
connection = sqlite3.connect('file.db', timeout=5, detect_types=sqlite3.PARSE_DECLTYPES)
connection.row_factory = sqlite3.Row
with connection:
    connection.execute('create table t (a integer primary key, b text, c blob)')
    connection.executemany('insert into t (b, c) values (?, ?)', ((letter, sqlite3.Binary(b'\0')) for letter in 'xyz'))
cursor = connection.cursor()
print(cursor.execute('select * from t where b = :b', {'b': 'y'}) is cursor, cursor.fetchone().keys(), cursor.rowcount, cursor.description)
print([tuple(row)[:2] for row in connection.execute('select * from t')], cursor.lastrowid, connection.total_changes)
connection.executescript("insert into t (b) values ('s'); select 1;")
try:
    with connection:
        connection.execute("insert into t (a) values (1)")
except sqlite3.IntegrityError as error:
    print(error)
print(connection.execute('select count(*) from t').fetchone()[0], connection.in_transaction if hasattr(connection, 'in_transaction') else None)
print('\n'.join(connection.iterdump()))
for row in connection.execute('select b from t order by b desc'):
    print(row[0], end=' ')
cursor.close()
connection.close()
try:
    connection.execute('select 1')
except sqlite3.ProgrammingError as error:
    print(error)
try:
    sqlite3.connect('/nowhere/at/all.db')
except sqlite3.OperationalError as error:
    print(error)
try:
    sqlite3.connect()
except TypeError as error:
    print('TypeError')
