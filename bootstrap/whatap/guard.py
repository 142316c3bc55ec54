"""The only place where a fault of our own is swallowed.

An exception that passes through our code belongs to the application unless it was raised *in* our code and
is of a builtin kind: a timeout that a signal handler raises in the middle of one of our functions must reach
the application like any other.
"""
import sys

from . import UNREADABLE, forget_compiled

MAX_FAILURES = 10

HERE = __file__[:max(__file__.rfind('/'), 0)] + '/'
_BUILTIN = ValueError.__module__

# Exceptions of the extension modules that we call: `struct.error` and the like.
own_errors = []

# Failures by instrumentation file (or other place), and the first of each kind for whoever looks.
failures = {}
first_faults = []
MAX_FAULTS = 20
MAX_PLACES = 100


def on_failure():
    """Replaced by tx.py: counts one swallowed failure in the ring's header."""


def on_too_many(place):
    """Replaced by hooks.py: takes that file's hooks off again."""


def ours():
    """Whether the exception being handled is a fault of our own. Counts it if so; never raises."""
    kind, error, trace = sys.exc_info()
    try:
        return _ours(kind, trace)
    finally:
        del error, trace


def _ours(kind, trace):
    if kind is None or not issubclass(kind, Exception) or kind.__module__ != _BUILTIN and kind not in own_errors:
        return False
    # An import of ours that fails does so in the interpreter's code.
    mine = last = trace
    while last.tb_next is not None:
        last = last.tb_next
        if not last.tb_frame.f_code.co_filename.startswith(_IMPORTING):
            mine = last
    if not mine.tb_frame.f_code.co_filename.startswith(HERE):
        return False
    if mine is not last and issubclass(kind, UNREADABLE):
        forget_compiled()
    _count(kind, mine.tb_frame, mine.tb_lineno)
    return True


_IMPORTING = '<frozen importlib'


def _count(kind, frame, line):
    if len(first_faults) < MAX_FAULTS:
        first_faults.append('%s in %s of %s line %d' % (
            kind.__name__, frame.f_code.co_name, frame.f_code.co_filename[len(HERE):], line))
    place = _hook_of(frame)
    if len(failures) < MAX_PLACES or place in failures:
        failures[place] = times = failures.get(place, 0) + 1
        if times == MAX_FAILURES:
            on_too_many(place)
    on_failure()


def _hook_of(frame):
    """The instrumentation file that led here, else the file that failed."""
    place = frame.f_code.co_filename[len(HERE):]
    for _ in range(10):
        if frame is None:
            break
        name = frame.f_code.co_filename
        if name.startswith(HERE + 'instrument/'):
            return name[len(HERE):]
        frame = frame.f_back
    return place


def guarded(function):
    """`function`, whose own faults end in None. Other exceptions pass through."""
    def wrapper(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except BaseException:
            if not ours():
                raise
            return None
    wrapper.__wrapped__ = function
    wrapper.__name__ = function.__name__
    return wrapper


def swallow(exc_info=None):
    """Inside an except block: True if the exception was our own fault, and has been counted."""
    if exc_info is not None:
        return _ours(exc_info[0], exc_info[2])
    return ours()
