"""The program's own tracing sees what it sees without us."""
from __future__ import print_function
import sys
import threading
seen = []


def trace(frame, event, argument):
    if frame.f_code.co_filename.endswith('main.py'):
        seen.append((event, frame.f_code.co_name, frame.f_lineno))
    return trace


def work(value):
    try:
        return 1 // value
    except ZeroDivisionError:
        return None


print(sys.gettrace(), sys.getprofile())
sys.settrace(trace)
work(1)
work(0)
sys.settrace(None)
print(seen)
seen[:] = []
sys.setprofile(lambda frame, event, argument: seen.append((event, frame.f_code.co_name)))
len([work(1)])
sys.setprofile(None)
print(seen)
threading.settrace(trace)
threading.setprofile(None)
