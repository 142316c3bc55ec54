"""psycopg2: connections and cursors are C types that cannot be patched, so `connect` makes a subclass of what it would have made.

The connection's subclass puts our `cursor()` *behind* the caller's class and in front of psycopg2's own: whatever the caller's class
does (dictionary cursors, say), its last word on the cursor's class passes there. The cursor's subclass sits in front of the
caller's, so that each call from outside is one step. `register_type`, `isinstance`, `with`, pools and copying see real psycopg2 objects.
"""
from ..guard import guarded
from ..hooks import look_like, wrap
from ..tx import NO_STEP, current
from ._database import statement, target, target_of_arguments
from ._past import traced_end_of_work, traced_fetch

SYSTEM = 'postgresql'
READY = 1  # psycopg2.extensions.STATUS_READY
MAX_CLASSES = 256

_connections = {}
_cursors = {}
_bases = {}


def instrument(module):
    extensions = module.extensions
    _bases['connection'], _bases['cursor'] = extensions.connection, extensions.cursor
    wrap(module, 'connect', traced_connect)


def traced_connect(connect):
    def wrapper(*args, **kwargs):
        # Handed on in the shape that it came in: another tracer's wrapper may be next.
        if len(args) > 1:
            args = (args[0], traced_class(args[1], 'connection', _connections, connection_members)) + args[2:]
        else:
            kwargs['connection_factory'] = traced_class(
                kwargs.get('connection_factory'), 'connection', _connections, connection_members)
        tx = current()
        if tx is None:
            return connect(*args, **kwargs)
        step = begin_connect(tx, args, kwargs) or NO_STEP
        try:
            connection = connect(*args, **kwargs)
        except BaseException as error:
            step.end(0, error)
            raise
        step.end()
        return connection
    return wrapper


@guarded
def begin_connect(tx, args, kwargs):
    return tx.dbc(target_of_arguments(args[0] if args else kwargs.get('dsn'), kwargs), SYSTEM)


def traced_class(base, kind, known, members):
    """Our subclass of `base`, or `base` itself when there can be none. Made once."""
    try:
        made = known.get(base)
    except TypeError:  # not hashable
        return base
    if made is None:
        made = make_class(base, kind, members) or base
        if len(known) < MAX_CLASSES:
            known[base] = made
    return made


@guarded
def make_class(base, kind, members):
    ours = _bases[kind]
    base = ours if base is None else base
    if not isinstance(base, type) or not issubclass(base, ours):
        return None  # some callable: its product is not ours to choose
    if '_whatap_base' in base.__dict__:
        return base
    return members(base, ours)


def describe(base, members):
    """Makes the subclass look like the class that the caller asked for."""
    members['__module__'] = base.__module__
    members['__doc__'] = base.__doc__
    members['_whatap_base'] = base
    if hasattr(base, '__qualname__'):
        members['__qualname__'] = base.__qualname__
    return members


def connection_members(base, ours):
    last = ours.cursor

    def cursor(self, *args, **kwargs):
        if len(args) > 1:
            args = (args[0], traced_class(args[1], 'cursor', _cursors, cursor_members)) + args[2:]
        else:
            asked = kwargs.get('cursor_factory')
            kwargs['cursor_factory'] = traced_class(
                self.cursor_factory if asked is None else asked, 'cursor', _cursors, cursor_members)
        return last(self, *args, **kwargs)

    cursor.__doc__ = last.__doc__
    methods = {'cursor': cursor}
    for name in ('commit', 'rollback'):
        method = getattr(ours, name)
        methods[name] = look_like(traced_end_of_work(method, name.upper(), begin_end), method)
    slots = {'__slots__': ('_whatap_target',)}
    if base is ours:
        return type(base)(base.__name__, (base,), describe(base, dict(slots, **methods)))
    behind = type(ours)(ours.__name__, (ours,), describe(ours, dict(methods, __slots__=())))
    return type(base)(base.__name__, (base, behind), describe(base, slots))


@guarded
def begin_end(tx, connection, statement):
    """The step of a commit or rollback, if a transaction has begun."""
    if connection.status == READY:
        return None
    return tx.sql(statement, SYSTEM, place_of(connection))


def cursor_members(base, ours):
    members = {'__slots__': ('_whatap_statement',)}
    for name in ('fetchmany', 'fetchall'):
        method = getattr(base, name)
        members[name] = look_like(traced_fetch(method, fetched), method)
    for name, text in (('execute', None), ('executemany', None), ('callproc', 'CALL '), ('copy_expert', None),
                       ('copy_from', 'COPY FROM '), ('copy_to', 'COPY TO ')):
        method = getattr(base, name, None)
        if method is not None:
            members[name] = traced(method, text, 1 if name in ('copy_from', 'copy_to') else 0)
    return type(base)(base.__name__, (base,), describe(base, members))


def traced(method, prefix, place):
    """`method` of a cursor as a step. Its statement is argument `place`, behind `prefix`."""
    def wrapper(self, *args, **kwargs):
        tx = current()
        if tx is None:
            return method(self, *args, **kwargs)
        step = begin(tx, self, args, kwargs, prefix, place) or NO_STEP
        try:
            result = method(self, *args, **kwargs)
        except BaseException as error:
            step.end(-1, error)
            raise
        step.end(self.rowcount)
        return result
    return look_like(wrapper, method)


def fetched(cursor, tx):
    """The statement whose rows these are: never what the driver has made of it, which holds values."""
    return getattr(cursor, '_whatap_statement', None), SYSTEM, place_of(cursor.connection)


@guarded
def begin(tx, cursor, args, kwargs, prefix, place):
    if len(args) > place:
        query = args[place]
    else:
        query = kwargs.get('query', kwargs.get('sql', kwargs.get('procname', kwargs.get('table'))))
    text = statement(query)
    if prefix is not None:
        text = prefix + text
    cursor._whatap_statement = text
    return tx.sql(text, SYSTEM, place_of(cursor.connection))


def place_of(connection):
    try:
        return connection._whatap_target
    except AttributeError:
        return target_of(connection)


def target_of(connection):
    """Where the connection leads, remembered if it is one of our class."""
    info = getattr(connection, 'info', None)  # psycopg2 2.8
    if info is not None:
        place = target(info.host, info.port, info.dbname)
    else:
        place = target_of_arguments(getattr(connection, 'dsn', None), {})
    if hasattr(type(connection), '_whatap_target'):
        connection._whatap_target = place
    return place
