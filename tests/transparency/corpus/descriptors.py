from __future__ import print_function
import os
import stat


def shown():
    found = []
    for name in sorted(os.listdir('/proc/self/fd'), key=int):
        try:
            mode = os.fstat(int(name)).st_mode
        except OSError:
            continue                                # the listing's own
        found.append((int(name), stat.S_IFMT(mode)))
    return found


print(shown())
first = os.open('/dev/null', os.O_RDONLY)
print(first)
import json, logging, sqlite3, threading, wsgiref.handlers
print(shown())
