"""psycopg 3: its connections and cursors are Python classes, patched in place, so subclasses, factories and pools are covered."""
from ..guard import guarded
from ..hooks import wrap
from ..tx import NO_STEP, current
from ._database import statement, target, target_of_arguments

SYSTEM = 'postgresql'
TARGET = '_whatap_target'


def instrument(module):
    wrap(module.Connection, 'connect', traced_connect)
    module.connect = module.Connection.connect
    for name in ('Cursor', 'ServerCursor'):
        cursor = getattr(module, name, None)
        for method in ('execute', 'executemany'):
            if cursor is not None and method in cursor.__dict__:
                wrap(cursor, method, traced_execute)
    from . import _psycopg_async
    _psycopg_async.instrument(module)


def traced_connect(connect):
    def wrapper(cls, conninfo='', *args, **kwargs):
        tx = current()
        if tx is None:
            return connect(cls, conninfo, *args, **kwargs)
        step = begin_connect(tx, conninfo, kwargs) or NO_STEP
        try:
            connection = connect(cls, conninfo, *args, **kwargs)
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
def begin_connect(tx, conninfo, arguments):
    return tx.dbc(target_of_arguments(conninfo, arguments), SYSTEM)


@guarded
def begin(tx, cursor, query):
    connection = cursor._conn
    place = connection.__dict__.get(TARGET)
    if place is None:
        place = connection.__dict__[TARGET] = target_of(connection)
    return tx.sql(statement(query), SYSTEM, place)


def target_of(connection):
    if connection.closed:
        return None
    info = connection.info
    return target(info.host, info.port, info.dbname)


@guarded
def rows(cursor):
    return cursor._rowcount
