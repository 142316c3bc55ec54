"""The option standalone_enabled: a program without a framework is one transaction, from its start to its end.

For cron jobs, scripts and management commands. Programs that serve are left to their requests.
"""
import posix
import sys

from . import guard, tx as transactions
from ._compat import at_exit, clock
from ._program import executable, stem, what_runs

# Nanoseconds that the program's end may wait for a collector that has not answered yet.
EXIT_WAIT = 1000000000

# They run until they are stopped.
SERVERS = frozenset((
    'celery', 'circusd', 'daphne', 'gunicorn', 'honcho', 'http', 'hypercorn', 'supervisord', 'uvicorn', 'waitress', 'waitress-serve'))
MANAGERS = frozenset(('manage', 'django', 'django-admin', 'flask'))
SERVING_COMMANDS = frozenset(('dbshell', 'run', 'runserver', 'runserver_plus', 'shell', 'shell_plus'))


def begin():
    """Begins the transaction of the program that this interpreter runs, if it is one that ends."""
    name = _name()
    if name is None:
        return
    tx = transactions.begin(None, name, kind=transactions.TASK)
    if tx is not None:
        transactions.whole = tx
        at_exit(_End(tx, posix.getpid()))


class _End(object):
    """Called at the interpreter's end. A forked child that ends in the normal way is not the program."""

    __slots__ = ('tx', 'process')

    def __init__(self, tx, process):
        self.tx = tx
        self.process = process

    def __call__(self):
        try:
            if posix.getpid() != self.process:
                return
            # Set when an exception was printed that nobody caught, and before this is called.
            error = getattr(sys, 'last_value', None)
            if error is not None:
                self.tx.fail(type(error), error, getattr(sys, 'last_traceback', None))
            del error
            self.tx.end()
            # Most often its only one: worth a longer wait for a slow collector than others get.
            transactions._ring._empty(clock() + EXIT_WAIT)
        except BaseException:
            if not guard.ours():
                raise


def _name():
    """`nightly.py`, `package.module`, `manage.py migrate`; None for what serves, and for `-c`, stdin and embedded
    interpreters."""
    is_module, program = what_runs()
    if not program or not executable().startswith('python'):
        return None
    name = program[0] if is_module else program[0].rstrip('/').rsplit('/', 1)[-1]
    kind = name.split('.')[0] if is_module else stem(name)
    if kind in SERVERS:
        return None
    if kind not in MANAGERS or len(program) == 1 or program[1].startswith('-'):
        return name
    return None if program[1] in SERVING_COMMANDS else '%s %s' % (name, program[1])
