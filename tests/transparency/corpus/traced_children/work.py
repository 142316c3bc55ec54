import os


def add(a, b):
    return a + b


def within(function):
    return function()


def forked(status):
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    return pid
