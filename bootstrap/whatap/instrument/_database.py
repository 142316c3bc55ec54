"""What database drivers have in common: where a connection leads, and the text of a statement. Never a parameter or a password."""
from .._compat import text as text_type

MAX_DSN = 4096
MAX_PARTS = 1000
MAX_DEPTH = 20

_EXACT = (str, bytes, text_type)
_SQL_MODULES = ('psycopg2.sql', 'psycopg.sql')


def target(host, port, database):
    """`host:port/database`; a unix socket counts as localhost."""
    host = _plain(host)
    if not host or host.startswith(('/', '@')):
        host = 'localhost'
    elif ':' in host and not host.startswith('['):
        host = '[' + host + ']'
    return '%s:%s/%s' % (host.split(',')[0], _plain(port).split(',')[0] or '5432', _plain(database))


def target_of_arguments(dsn, arguments):
    """The target that the arguments of a driver's `connect` name. What they do not name is taken as its default."""
    parts = parse(dsn)
    for key in ('host', 'hostaddr', 'port', 'dbname', 'database', 'user'):
        value = arguments.get(key)
        if value is not None:
            parts['dbname' if key == 'database' else key] = value
    return target(parts.get('host') or parts.get('hostaddr'), parts.get('port'), parts.get('dbname') or parts.get('user'))


def parse(dsn):
    """Host, port and names of a libpq connection string in either form. Total: what cannot be read is left out."""
    if type(dsn) is bytes and bytes is not str:
        dsn = dsn[:MAX_DSN].decode('utf-8', 'replace')
    if type(dsn) not in _EXACT or len(dsn) > MAX_DSN:
        return {}
    for scheme in ('postgresql://', 'postgres://'):
        if dsn.startswith(scheme):
            return _parse_url(dsn[len(scheme):])
    return _parse_pairs(dsn)


def statement(query):
    """Text of what a cursor was asked to execute. Objects of a driver's `sql` module are put together without values."""
    kind = type(query)
    if kind in _EXACT:
        return query
    if isinstance(query, (text_type, bytes)):
        return query  # encoded later without calling anything of the subclass
    if getattr(kind, '__module__', None) in _SQL_MODULES:
        parts = []
        _compose(query, parts, 0)
        return ''.join(parts)
    return '<' + kind.__name__ + '>'


def _compose(query, parts, depth):
    if len(parts) >= MAX_PARTS or depth > MAX_DEPTH:
        return
    kind = type(query)
    name = kind.__name__ if kind.__module__ in _SQL_MODULES else ''
    inner = getattr(query, '_wrapped', None)  # psycopg2
    if inner is None:
        inner = getattr(query, '_obj', None)  # psycopg 3
    if name == 'SQL' and type(inner) in _EXACT:
        parts.append(inner)
    elif name == 'Composed' and type(inner) is list:
        for part in inner:
            _compose(part, parts, depth + 1)
    elif name == 'Identifier' and type(inner) in (tuple, list):
        parts.append('.'.join('"' + _plain(part).replace('"', '""') + '"' for part in inner))
    elif name == 'Identifier' and type(inner) in _EXACT:
        parts.append('"' + inner.replace('"', '""') + '"')
    elif name == 'Placeholder':
        parts.append('%(' + inner + ')s' if type(inner) in _EXACT and inner else '%s')
    else:
        parts.append('?')  # a literal, or something that we do not know: it may be a value


def _plain(value):
    kind = type(value)
    if kind is int:
        return '%d' % value
    if kind is bytes and bytes is not str:
        return value.decode('utf-8', 'replace')
    return value if kind in _EXACT else ''


def _parse_url(rest):
    rest, _, query = rest.partition('#')[0].partition('?')
    place, _, database = rest.partition('/')
    hosts = place.rpartition('@')[2]
    parts = {'dbname': _unquote(database)}
    user = place.rpartition('@')[0].partition(':')[0]
    if user:
        parts['user'] = _unquote(user)
    first = hosts.split(',')[0]
    if first.startswith('['):
        host, _, port = first[1:].partition(']')
        port = port[1:]
    else:
        host, _, port = first.partition(':')
    parts['host'], parts['port'] = _unquote(host), port
    for pair in query.split('&'):
        key, _, value = pair.partition('=')
        if key in ('host', 'port', 'dbname', 'user') and value:
            parts[key] = _unquote(value)
    return parts


def _unquote(value):
    """Percent-encoded ASCII; anything else stays as it is."""
    if '%' not in value:
        return value
    head, rest = value.split('%', 1)[0], value.split('%')[1:]
    found = [head]
    for part in rest:
        try:
            code = int(part[:2], 16)
        except ValueError:
            code = 0
        found.append(chr(code) + part[2:] if 32 <= code < 127 else '%' + part)
    return ''.join(found)


def _parse_pairs(dsn):
    parts = {}
    place, end = 0, len(dsn)
    while place < end:
        equals = dsn.find('=', place)
        if equals < 0:
            break
        key = dsn[place:equals].strip()
        place = equals + 1
        while place < end and dsn[place].isspace():
            place += 1
        value, place = _value(dsn, place, end)
        if key in ('host', 'hostaddr', 'port', 'dbname', 'user'):
            parts[key] = value
    return parts


def _value(dsn, place, end):
    quoted = place < end and dsn[place] == "'"
    if quoted:
        place += 1
    found = []
    while place < end:
        character = dsn[place]
        if character == '\\' and place + 1 < end:
            found.append(dsn[place + 1])
            place += 2
            continue
        place += 1
        if character == "'" if quoted else character.isspace():
            break
        found.append(character)
    return ''.join(found), place
