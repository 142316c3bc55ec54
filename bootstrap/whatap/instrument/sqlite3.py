"""sqlite3: statements and connections as steps.

The C types cannot be patched, and an instance of another type would be noticed. So the names `Connection` and
`Cursor` of the module are given to subclasses that add nothing but a look at `execute` and its like:
`type(sqlite3.connect(path)) is sqlite3.Connection`, `isinstance`, subclasses, factories, `repr` and rows stay as
they are, and rows are still fetched by C code alone. What shows: one more class in `__mro__`, and Python functions
where C methods were. Django's cursors are a subclass of `Cursor`, hence covered.
"""
import sys

from whatap import guard, hooks, statements, tx as transactions
from whatap._compat import text as text_type
from whatap.instrument import _past

SYSTEM = 'sqlite'
FACTORY = 5  # place of `factory` among connect's positional arguments

_traced = {}


def instrument(module):
    """`sqlite3.dbapi2`; the names that `sqlite3` and `_sqlite3` have for the same things follow."""
    connection, cursor = module.Connection, module.Cursor
    if connection in _traced.values():
        return
    traced_cursor = _cursor_class(cursor)
    traced_connection = _connection_class(connection, traced_cursor)
    _traced[connection] = traced_connection
    connect = _Connect(module.connect, traced_connection, traced_cursor)
    replacements = [(connection, traced_connection), (cursor, traced_cursor), (module.connect, connect)]
    for name in ('_sqlite3', 'sqlite3.dbapi2', 'sqlite3'):
        place = sys.modules.get(name)
        if place is not None:
            _replace(place, replacements)


def instrument_package(module):
    """`sqlite3`, which has taken its names from `sqlite3.dbapi2` by now."""
    instrument(sys.modules['sqlite3.dbapi2'])


def _replace(module, replacements):
    names = module.__dict__
    for name in list(names):
        for found, ours in replacements:
            if names[name] is found:
                setattr(module, name, ours)


class _Connect(object):
    """`connect`. Like the C function that it stands for it does not become a method of a class that has it as an attribute."""

    def __init__(self, original, traced_connection, traced_cursor):
        self._original = original
        self._classes = traced_connection, traced_cursor
        hooks.look_like(self, original)

    def __call__(self, *args, **kwargs):
        traced_connection, traced_cursor = self._classes
        if len(args) <= FACTORY:
            factory = kwargs.get('factory')
            if factory is None and 'factory' not in kwargs or factory in _traced:
                kwargs['factory'] = traced_connection
            elif factory is not None:
                kwargs['factory'] = _traced_factory(factory, traced_connection, traced_cursor)
        else:
            args = list(args)
            args[FACTORY] = _traced_factory(args[FACTORY], traced_connection, traced_cursor)
        return self._original(*args, **kwargs)

    def __reduce__(self):
        return self.__name__

    def __repr__(self):
        return repr(self._original)


def _traced_factory(factory, traced_connection, traced_cursor):
    """The factory itself if its connections are traced, or cannot be; else a subclass of it, always the same."""
    try:
        if not isinstance(factory, type) or issubclass(factory, traced_connection):
            return factory
        ours = _traced.get(factory)
        if ours is None and issubclass(factory, tuple(_traced)) and len(_traced) < MAX_FACTORIES:
            ours = _traced[factory] = _connection_class(factory, traced_cursor)
        return ours or factory
    except BaseException:
        if not guard.ours():
            raise
        return factory


MAX_FACTORIES = 100


def _cursor_class(base):
    traced = statements.traced_execute
    execute, executemany, executescript = traced(base.execute), traced(base.executemany), traced(base.executescript)
    fetchmany, fetchall = _past.traced_fetch(base.fetchmany, _fetched), _past.traced_fetch(base.fetchall, _fetched)
    return _subclass(base, (), execute=execute, executemany=executemany, executescript=executescript, fetchmany=fetchmany,
                     fetchall=fetchall)


def _fetched(cursor, tx):
    """The statement whose rows these are: the last one, if nothing has come after it."""
    statement = None
    last = tx.steps[-1] if tx.steps else None
    if type(last) is bytes and last[4:5] == _SQL:
        size = bytearray(last[32:34])
        statement = last[34:34 + size[0] + 256 * size[1]]
    return statement, SYSTEM, cursor.connection._whatap.target


_SQL = b'\1'


def _connection_class(base, traced_cursor):
    current = transactions.current
    base_init, base_cursor = base.__init__, base.cursor

    def __init__(self, *args, **kwargs):
        database = args[0] if args else kwargs.get('database')
        target = database if type(database) in _TEXTS else _path(database)
        self._whatap = statements.statements_of(SYSTEM, target)
        tx = current()
        if tx is None:
            base_init(self, *args, **kwargs)
            return
        step = tx.dbc(target, SYSTEM)
        try:
            base_init(self, *args, **kwargs)
        except BaseException:
            step.end(0, sys.exc_info()[1])
            raise
        step.end()

    def cursor(self, *args, **kwargs):
        if args or kwargs:
            return base_cursor(self, *args, **kwargs)
        return base_cursor(self, traced_cursor)

    if _asks_itself(base):
        def execute(self, *args):
            return self.cursor().execute(*args)

        def executemany(self, *args):
            return self.cursor().executemany(*args)

        def executescript(self, *args):
            return self.cursor().executescript(*args)
    else:
        def execute(self, *args):
            return base_cursor(self, traced_cursor).execute(*args)

        def executemany(self, *args):
            return base_cursor(self, traced_cursor).executemany(*args)

        def executescript(self, *args):
            return base_cursor(self, traced_cursor).executescript(*args)

    more = {}
    if _ends_by_itself(base):
        more['__exit__'] = _leave(base.__exit__)
    return _subclass(base, ('_whatap',), __init__=__init__, cursor=cursor, execute=execute, executemany=executemany,
                     executescript=executescript, commit=_past.traced_end_of_work(base.commit, 'COMMIT', _end_of_work),
                     rollback=_past.traced_end_of_work(base.rollback, 'ROLLBACK', _end_of_work), **more)


@guard.guarded
def _end_of_work(tx, connection, statement):
    """The step of a commit or rollback, if anything has been changed."""
    try:
        if not getattr(connection, 'in_transaction', True):
            return None
    except sys.modules['sqlite3.dbapi2'].Error:  # closed: the library will say so
        return None
    return tx.sql(statement, SYSTEM, connection._whatap.target)


def _leave(leave):
    """The end of a `with` block where it does not ask `commit` and `rollback`."""
    commit, rollback = [_past.traced_end_of_work(leave, statement, _end_of_work) for statement in ('COMMIT', 'ROLLBACK')]

    def __exit__(self, *failure):
        return (commit if failure[:1] == (None,) else rollback)(self, *failure)
    return __exit__


def _ends_by_itself(base):
    """Whether a `with` block of this Python ends without `self.commit()`."""
    asked = []

    class Probe(base):
        def commit(self):
            asked.append(True)

    probe = Probe(':memory:')
    with probe:
        probe.execute('create table x (a)')
        probe.execute('insert into x values (1)')
    probe.close()
    return not asked


def _asks_itself(base):
    """Whether `Connection.execute` of this Python takes its cursor from `self.cursor()`, which may be overridden."""
    asked = []

    class Probe(base):
        def cursor(self, *args):
            asked.append(True)
            return base.cursor(self, *args)

    probe = Probe(':memory:')
    probe.execute('select 1')
    probe.close()
    return bool(asked)


_TEXTS = (str, text_type)


def _subclass(base, slots, **methods):
    """A subclass that looks like its base."""
    for name, method in methods.items():
        hooks.look_like(method, getattr(base, name))
    names = dict(methods, __slots__=slots, __doc__=base.__doc__, __module__=base.__module__)
    made = type(base)(base.__name__, (base,), names)
    if hasattr(base, '__qualname__'):
        made.__qualname__ = base.__qualname__
    return made


def _path(database):
    """The text of a path object, which is asked only if it is one of pathlib's own."""
    if getattr(type(database), '__module__', '').partition('.')[0] == 'pathlib':
        return str(database)
    return None
