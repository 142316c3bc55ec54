# python: 3.6
import http.client
import logging
import sqlite3
import threading
from unittest import mock
with mock.patch('sqlite3.connect') as connect:
    connect.return_value.execute.return_value = [1]
    print(sqlite3.connect('x').execute('y'), connect.mock_calls)
with mock.patch.object(http.client.HTTPConnection, 'request', autospec=True) as request:
    connection = http.client.HTTPConnection('nowhere')
    connection.request('GET', '/', headers={'a': 'b'})
    print(request.call_args[0][1:], request.call_args[1])
with mock.patch.object(threading.Thread, 'start') as start:
    threading.Thread().start()
    print(start.mock_calls)
with mock.patch('logging.Logger.handle') as handle:
    logging.getLogger('x').error('e')
    print(handle.call_count)
print(sqlite3.connect(':memory:').execute('select 3').fetchall())
