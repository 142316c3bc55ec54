# python: 3.6
import inspect
import sqlite3
import threading
import logging
import http.client
from concurrent.futures import ThreadPoolExecutor
for function in (threading.Thread.start, threading.Thread.run, http.client.HTTPConnection.request, http.client.HTTPConnection.getresponse,
                 logging.Logger.handle, logging.Logger.info, ThreadPoolExecutor.submit):
    print(function.__name__, function.__qualname__, function.__module__, inspect.signature(function), function.__doc__ and function.__doc__[:40])
