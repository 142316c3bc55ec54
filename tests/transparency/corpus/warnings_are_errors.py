# command: {python} -W error main.py
import collections, json, logging, sqlite3, sys, threading
import wsgiref.handlers
try:
    import http.client, urllib.request
except ImportError:
    import httplib, urllib2
connection = sqlite3.connect(':memory:')
connection.execute('select 1').fetchall()
connection.close()
sys.stdout.write('no warning\n')
