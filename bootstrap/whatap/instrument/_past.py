"""What becomes a step only when there was something to do: fetching rows and the ways through middleware when they took time,
commits when there is a transaction to commit.
"""
import sys

from .. import encode, tx as transactions
from .._compat import clock
from ..guard import guarded

# Nanoseconds. What is quicker is not worth a step.
FROM = 5 * 1000000


def traced_fetch(fetch, statement_of):
    """A cursor's method that fetches rows. `statement_of(cursor, tx)` gives statement, system and target."""
    def wrapper(self, *args, **kwargs):
        started = clock()
        try:
            rows = fetch(self, *args, **kwargs)
        except BaseException:
            note_fetch(self, started, None, sys.exc_info()[1], statement_of)
            raise
        if clock() - started > FROM:
            note_fetch(self, started, rows, None, statement_of)
        return rows
    return wrapper


@guarded
def note_fetch(cursor, started, rows, error, statement_of):
    tx = transactions.current()
    if tx is not None and (error is None or clock() - started > FROM):
        statement, system, target = statement_of(cursor, tx)
        count = len(rows) if type(rows) is list else -1
        record(tx, transactions.FETCH, started, clock(), count, statement, system, target, error)


def record(tx, kind, started, ended, value, a, b=None, c=None, error=None):
    """A step of the transaction that began and ended at these times."""
    flags, failure = 0, None
    if error is not None:
        flags, failure = transactions.wire.STEP_FAILED, transactions.errors.short(error)
    transactions.keep(tx, encode.any_step(kind, flags, tx.open, started - tx.start, ended - started, value, 1, 0, a, b, c, failure))


def traced_end_of_work(method, statement, begin):
    """A connection's `commit` or `rollback` as a step. `begin(tx, connection, statement)` begins it, or gives None when there is
    nothing to end."""
    def wrapper(self, *args, **kwargs):
        tx = transactions.current()
        step = begin(tx, self, statement) if tx is not None else None
        if step is None:
            return method(self, *args, **kwargs)
        try:
            result = method(self, *args, **kwargs)
        except BaseException:
            step.end(-1, sys.exc_info()[1])
            raise
        step.end(0)
        return result
    return wrapper
