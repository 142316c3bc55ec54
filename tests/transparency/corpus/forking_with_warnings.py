# command: {python} -W error main.py
# python: 3.6
import os
import sqlite3
import threading
import wsgiref.util


def application(environ, start_response):
    start_response('200 OK', [])
    return [b'']


pid = os.fork()
if pid == 0:
    os._exit(5)
print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]), threading.active_count())
