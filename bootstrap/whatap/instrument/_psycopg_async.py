"""The asynchronous half of psycopg 3."""
from .._compat import clock
from ..hooks import wrap
from ..tx import NO_STEP, current
from . import _past, psycopg
from .psycopg import begin, begin_connect, begin_end, fetched, rows


def instrument(module):
    wrap(module.AsyncConnection, 'connect', traced_connect)
    for name in ('AsyncCursor', 'AsyncServerCursor'):
        cursor = getattr(module, name, None)
        for method in ('execute', 'executemany'):
            if cursor is not None and method in cursor.__dict__:
                wrap(cursor, method, traced_execute)
        for method in psycopg.fetches_of(cursor, name):
            wrap(cursor, method, traced_fetch)
    for method, text in (('commit', 'COMMIT'), ('rollback', 'ROLLBACK')):
        wrap(module.AsyncConnection, method, lambda end, text=text: traced_end_of_work(end, text))
    wrap(module.AsyncCursor, 'stream', traced_stream)
    wrap(module.AsyncCursor, 'copy', traced_copy)


def traced_connect(connect):
    async def wrapper(*args, **kwargs):
        tx = current()
        if tx is None:
            return await connect(*args, **kwargs)
        step = begin_connect(tx, args[1:], kwargs) or NO_STEP
        try:
            connection = await connect(*args, **kwargs)
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


def traced_fetch(fetch):
    async def wrapper(self, *args, **kwargs):
        started = clock()
        try:
            found = await fetch(self, *args, **kwargs)
        except BaseException as error:
            _past.note_fetch(self, started, None, error, fetched)
            raise
        if clock() - started > _past.FROM:
            _past.note_fetch(self, started, found, None, fetched)
        return found
    return wrapper


def traced_end_of_work(end, text):
    async def wrapper(self, *args, **kwargs):
        tx = current()
        step = None if tx is None else begin_end(tx, self, text)
        if step is None:
            return await end(self, *args, **kwargs)
        try:
            result = await end(self, *args, **kwargs)
        except BaseException as error:
            step.end(-1, error)
            raise
        step.end(0)
        return result
    return wrapper


def traced_stream(stream):
    async def wrapper(self, query, *args, **kwargs):
        tx = current()
        step = NO_STEP if tx is None else begin(tx, self, query) or NO_STEP
        found = stream(self, query, *args, **kwargs)
        count = 0
        try:
            async for row in found:
                count += 1
                yield row
        except GeneratorExit:
            await found.aclose()
            step.end(count)
            raise
        except BaseException as error:
            step.end(count, error)
            raise
        step.end(count)
    return wrapper


class TracedCopy(psycopg.TracedCopy):
    """As its base, for `async with`."""

    __slots__ = ()

    async def __aenter__(self):
        self.enter()
        try:
            return await self._copy.__aenter__()
        except BaseException as error:
            self._step.end(-1, error)
            raise

    async def __aexit__(self, kind, error, trace):
        try:
            result = await self._copy.__aexit__(kind, error, trace)
        except BaseException as raised:
            self._step.end(-1, raised)
            raise
        self._step.end(rows(self._cursor), error)
        return result


def traced_copy(copy):
    def wrapper(self, statement, *args, **kwargs):
        found = copy(self, statement, *args, **kwargs)
        return found if current() is None else TracedCopy(found, self, statement)
    return wrapper
