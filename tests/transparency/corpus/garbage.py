from __future__ import print_function
import gc
import sys
import weakref


class Mine(object):
    pass


print(gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.garbage, getattr(gc, 'callbacks', []))
gc.collect()
one = Mine()
one.itself = one
dead = weakref.ref(one)
print(len([thing for thing in gc.get_objects() if type(thing) is Mine]), sys.getrefcount(one))
del one
gc.collect()
print(dead(), len([thing for thing in gc.get_objects() if type(thing) is Mine]))
import sqlite3
connection = sqlite3.connect(':memory:')
row = connection.execute('select 1')
connection.create_function('f', 0, lambda kept=Mine(): 1)
del connection, row
print(len([thing for thing in gc.get_objects() if type(thing) is Mine]))
