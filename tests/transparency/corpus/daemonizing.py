"""The usual double fork; the parent waits for a word from the daemon through a pipe that it must be able to close."""
from __future__ import print_function
import os
import sys
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir('/')
        os.close(reading)
        nowhere = os.open('/dev/null', os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        os.closerange(writing + 1, 1024)
        import sqlite3
        os.write(writing, ('daemon %s' % sqlite3.connect(':memory:').execute('select 1').fetchone()).encode())
        os._exit(0)
    os._exit(0)
os.close(writing)
os.wait()
said = b''
while True:
    more = os.read(reading, 100)
    if not more:
        break
    said += more
print(said)
