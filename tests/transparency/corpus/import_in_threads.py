from __future__ import print_function
import threading
found = []


def work(name):
    found.append(__import__(name, None, None, ['x']).__name__)


threads = [threading.Thread(target=work, args=(name,)) for name in ('sqlite3', 'json', 'logging', 'sqlite3', 'email.parser', 'wsgiref.handlers') * 3]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(found))
