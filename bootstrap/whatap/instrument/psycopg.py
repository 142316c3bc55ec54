"""psycopg 3: its connections and cursors are Python classes, patched in place, so subclasses, factories and pools are covered."""
from ..guard import guarded
from ..hooks import wrap
from ..tx import NO_STEP, current
from ._database import statement, target, target_of_arguments
from ._past import traced_end_of_work, traced_fetch

SYSTEM = 'postgresql'
IN_TRANSACTION = (2, 3)  # PQTRANS_INTRANS and PQTRANS_INERROR of libpq
TARGET = '_whatap_target'


def instrument(module):
    original = module.Connection.connect
    wrap(module.Connection, 'connect', traced_connect)
    if module.connect == original:
        module.connect = module.Connection.connect
    else:  # another tracer's, which leads to the original
        wrap(module, 'connect', lambda connect: traced_connect(connect, 0))
    for name in ('Cursor', 'ServerCursor'):
        cursor = getattr(module, name, None)
        for method in ('execute', 'executemany'):
            if cursor is not None and method in cursor.__dict__:
                wrap(cursor, method, traced_execute)
        for method in fetches_of(cursor, name):
            wrap(cursor, method, lambda fetch: traced_fetch(fetch, fetched))
    for method, text in (('commit', 'COMMIT'), ('rollback', 'ROLLBACK')):
        wrap(module.Connection, method, lambda end, text=text: traced_end_of_work(end, text, begin_end))
    wrap(module.Cursor, 'stream', traced_stream)
    wrap(module.Cursor, 'copy', traced_copy)
    from . import _psycopg_async
    _psycopg_async.instrument(module)


def fetches_of(cursor, name):
    """Names of the methods that fetch rows. Only a server's cursor asks the server for a single one."""
    names = ('fetchone', 'fetchmany', 'fetchall') if name.endswith('ServerCursor') else ('fetchmany', 'fetchall')
    return [name for name in names if cursor is not None and name in cursor.__dict__]


def traced_connect(connect, conninfo_at=1):
    def wrapper(*args, **kwargs):
        tx = current()
        if tx is None:
            return connect(*args, **kwargs)
        step = begin_connect(tx, args[conninfo_at:], kwargs) or NO_STEP
        try:
            connection = connect(*args, **kwargs)
        except BaseException as error:
            step.end(0, error)
            raise
        step.end()
        return connection
    return wrapper


def traced_execute(execute):
    def wrapper(self, query, *args, **kwargs):
        tx = current()
        if tx is None:
            return execute(self, query, *args, **kwargs)
        step = begin(tx, self, query) or NO_STEP
        try:
            result = execute(self, query, *args, **kwargs)
        except BaseException as error:
            step.end(-1, error)
            raise
        step.end(rows(self))
        return result
    return wrapper


@guarded
def begin_connect(tx, args, kwargs):
    return tx.dbc(target_of_arguments(args[0] if args else kwargs.get('conninfo'), kwargs), SYSTEM)


@guarded
def begin(tx, cursor, query):
    return tx.sql(statement(query), SYSTEM, place_of(cursor._conn))


@guarded
def begin_end(tx, connection, text):
    """The step of a commit or rollback, if a transaction has begun."""
    if connection.pgconn.transaction_status not in IN_TRANSACTION:
        return None
    return tx.sql(text, SYSTEM, place_of(connection))


def fetched(cursor, tx):
    """The statement whose rows these are. A server's cursor knows only what it has declared, with numbers for the values."""
    query = cursor._last_query
    if query is None and hasattr(cursor, '_name') and cursor._query is not None:
        query = cursor._query.query.partition(b' FOR ')[2]
    return None if query is None else statement(query), SYSTEM, place_of(cursor._conn)


def place_of(connection):
    place = connection.__dict__.get(TARGET)
    if place is None:
        place = connection.__dict__[TARGET] = target_of(connection)
    return place


def target_of(connection):
    if connection.closed:
        return None
    info = connection.info
    return target(info.host, info.port, info.dbname)


@guarded
def rows(cursor):
    return cursor._rowcount


def traced_stream(stream):
    """Rows as they come: the step lasts until the last one has been taken."""
    def wrapper(self, query, *args, **kwargs):
        tx = current()
        if tx is None:
            return stream(self, query, *args, **kwargs)
        return _traced_rows(tx, self, query, stream(self, query, *args, **kwargs))
    return wrapper


def _traced_rows(tx, cursor, query, found):
    step = begin(tx, cursor, query) or NO_STEP
    count = 0
    try:
        for row in found:
            count += 1
            yield row
    except GeneratorExit:
        found.close()
        step.end(count)
        raise
    except BaseException as error:
        step.end(count, error)
        raise
    step.end(count)


class TracedCopy(object):
    """A `copy()` context manager that is a step from its entry to its exit."""

    __slots__ = ('_copy', '_cursor', '_query', '_step')

    def __init__(self, copy, cursor, query):
        self._copy = copy
        self._cursor = cursor
        self._query = query
        self._step = NO_STEP

    def __enter__(self):
        self.enter()
        try:
            return self._copy.__enter__()
        except BaseException as error:
            self._step.end(-1, error)
            raise

    def __exit__(self, kind, error, trace):
        try:
            result = self._copy.__exit__(kind, error, trace)
        except BaseException as raised:
            self._step.end(-1, raised)
            raise
        self._step.end(rows(self._cursor), error)
        return result

    def enter(self):
        tx = current()
        if tx is not None:
            self._step = begin(tx, self._cursor, self._query) or NO_STEP


def traced_copy(copy):
    def wrapper(self, statement, *args, **kwargs):
        found = copy(self, statement, *args, **kwargs)
        return found if current() is None else TracedCopy(found, self, statement)
    return wrapper
