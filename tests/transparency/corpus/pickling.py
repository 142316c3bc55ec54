# python: 3.6
import copy
import http.client
import logging
import pickle
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

print(pickle.loads(pickle.dumps(sqlite3.connect)) is sqlite3.connect, copy.copy(sqlite3.connect) is sqlite3.connect)
for thing in (sqlite3.Connection, sqlite3.Cursor, http.client.HTTPConnection, http.client.HTTPConnection.request,
              threading.Thread, threading.Thread.start, ThreadPoolExecutor, ThreadPoolExecutor.submit, logging.Logger, logging.Logger.handle,
              logging.makeLogRecord({'msg': 'x', 'created': 1, 'msecs': 0, 'relativeCreated': 0, 'thread': 1, 'process': 1}),
              http.client.HTTPConnection('localhost'), logging.getLogger('x')):
    try:
        data = pickle.dumps(thing)
        print(thing, len(data), type(pickle.loads(data)) is type(thing), type(copy.copy(thing)) is type(thing))
    except Exception as error:
        print(type(thing), type(error), error)
