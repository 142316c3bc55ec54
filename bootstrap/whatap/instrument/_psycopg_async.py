"""The asynchronous half of psycopg 3."""
from ..hooks import wrap
from ..tx import NO_STEP, current
from .psycopg import begin, begin_connect, rows


def instrument(module):
    wrap(module.AsyncConnection, 'connect', traced_connect)
    for name in ('AsyncCursor', 'AsyncServerCursor'):
        cursor = getattr(module, name, None)
        for method in ('execute', 'executemany'):
            if cursor is not None and method in cursor.__dict__:
                wrap(cursor, method, traced_execute)


def traced_connect(connect):
    async def wrapper(cls, conninfo='', *args, **kwargs):
        tx = current()
        if tx is None:
            return await connect(cls, conninfo, *args, **kwargs)
        step = begin_connect(tx, conninfo, kwargs) or NO_STEP
        try:
            connection = await connect(cls, conninfo, *args, **kwargs)
        except BaseException as error:
            step.end(0, error)
            raise
        step.end()
        return connection
    return wrapper


def traced_execute(execute):
    async def wrapper(self, query, *args, **kwargs):
        tx = current()
        if tx is None:
            return await execute(self, query, *args, **kwargs)
        step = begin(tx, self, query) or NO_STEP
        try:
            result = await execute(self, query, *args, **kwargs)
        except BaseException as error:
            step.end(-1, error)
            raise
        step.end(rows(self))
        return result
    return wrapper
