from __future__ import print_function
import sys
import sqlite3, json, logging, threading
try:
    import http.client as client
    import concurrent.futures as futures
except ImportError:
    import httplib as client
    futures = None
for module in (sqlite3, json, logging, threading, client, futures):
    if module is not None:
        print(module.__name__, module.__file__.rstrip('c'), type(module), sorted(n for n in vars(module) if not n.startswith('__')))
        if sys.version_info > (3, 4):
            print(module.__spec__.name, type(module.__spec__.loader), type(module.__loader__), module.__cached__ is not None)
import sqlite3 as again
print(again is sys.modules['sqlite3'], __import__('sqlite3') is again)
