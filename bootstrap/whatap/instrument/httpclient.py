"""`http.client` (`httplib` on Python 2.7): one step per request, from `putrequest` until the response's header has arrived.

urllib, urllib3 and requests end up here. The step in progress is kept on the connection object, where `urllib3.py` may have
put it already: then this file adds what it knows and ends it, and no call is counted twice.
"""
from ..guard import ours
from ..hooks import wrap
from ..tx import current

STEP = '_whatap_step'
OUTER = '_whatap_outer'

_TEXT = (str, bytes, type(u''))
_PORTS = {'http': 80, 'https': 443}
_bases = {}
MAX_BASES = 1000


def instrument(module):
    connection = module.HTTPConnection
    wrap(connection, 'putrequest', traced_putrequest)
    wrap(connection, 'endheaders', traced_endheaders)
    wrap(connection, 'getresponse', traced_getresponse)


def traced_putrequest(putrequest):
    def wrapper(self, method, url, *args, **kwargs):
        result = putrequest(self, method, url, *args, **kwargs)
        tx = current()
        if tx is not None:
            begin(tx, self, method, url, False)
        return result
    return wrapper


def traced_endheaders(endheaders):
    def wrapper(self, *args, **kwargs):
        step = self.__dict__.get(STEP)
        if step is None:
            return endheaders(self, *args, **kwargs)
        add_headers(self, step)
        try:
            return endheaders(self, *args, **kwargs)
        except BaseException as error:
            # urllib3 goes on after a broken pipe and reads the answer: it ends what it began.
            if not self.__dict__.get(OUTER):
                finish(self, 0, error)
            raise
    return wrapper


def traced_getresponse(getresponse):
    code = getattr(getresponse, '__code__', None)
    accepts_buffering = code is not None and 'buffering' in code.co_varnames[:code.co_argcount]

    def wrapper(self, *args, **kwargs):
        # urllib3 1.x tries `buffering=True` first and takes the TypeError for an answer.
        if STEP not in self.__dict__ or (kwargs and not accepts_buffering):
            return getresponse(self, *args, **kwargs)
        try:
            response = getresponse(self, *args, **kwargs)
        except BaseException as error:
            finish(self, 0, error)
            raise
        finish(self, getattr(response, 'status', 0), None)
        return response
    return wrapper


def begin(tx, connection, method, url, outer):
    """Begins the step of a request on this connection, unless its outer layer has begun it."""
    try:
        state = connection.__dict__
        if STEP in state:
            if OUTER in state:
                return
            finish(connection, 0, None)  # its answer was never read
        address, place = describe(connection, url)
        state[STEP] = tx.http(method if type(method) in _TEXT else None, address, place)
        if outer:
            state[OUTER] = True
    except BaseException:
        if not ours():
            raise


def finish(connection, status, error):
    """Ends the step of this connection, if there is one."""
    try:
        state = connection.__dict__
        step = state.pop(STEP, None)
        state.pop(OUTER, None)
        if step is not None:
            step.end(status if type(status) is int else 0, error)
    except BaseException:
        if not ours():
            raise


def add_headers(connection, step):
    """The trace context, straight into the connection's buffer: the caller's own headers stay as they are."""
    try:
        lines = connection.__dict__.get('_buffer')
        if type(lines) is not list or not lines or b'\ntraceparent:' in b'\n'.join(lines).lower():
            return
        tx = step.tx or current()
        if tx is None:
            return
        lines.append(b'traceparent: ' + (step.traceparent() or tx.traceparent()).encode('ascii'))
        state = tx.tracestate
        if state and '\n' not in state and '\r' not in state:
            lines.append(b'tracestate: ' + state.encode('latin-1'))
    except BaseException:
        if not ours():
            raise


def describe(connection, url):
    """(URL without user info and query, host:port). Knows proxies and tunnels."""
    if type(url) is not str:
        url = url.decode('latin-1') if type(url) is bytes else url.encode('utf-8') if type(url) in _TEXT else '/'
    if '?' in url or '#' in url:
        url = url.partition('?')[0].partition('#')[0]
    if '://' in url:  # a request to a proxy names the whole URL
        scheme, _, rest = url.partition('://')
        place, slash, path = rest.partition('/')
        place = place.rpartition('@')[2]
        return scheme + '://' + place + slash + path, _with_port(place, scheme)
    host, port = getattr(connection, '_tunnel_host', None), getattr(connection, '_tunnel_port', None)
    if not host:
        host, port = getattr(connection, 'host', None), getattr(connection, 'port', None)
    key = getattr(connection, 'default_port', 80), host if type(host) is str else 'unknown', port
    base, place = _bases.get(key) or _base(key)
    return base + (url if url[:1] == '/' else '/' + url), place


def _base(key):
    default, host, port = key
    scheme = 'https' if default == 443 else 'http'
    if ':' in host and host[:1] != '[':
        host = '[' + host + ']'
    port = port if type(port) is int else _PORTS[scheme]
    place = '%s:%d' % (host, port)
    found = scheme + '://' + (host if port == _PORTS[scheme] else place), place
    if len(_bases) < MAX_BASES:
        _bases[key] = found
    return found


def _with_port(place, scheme):
    if place.rpartition(']')[2].find(':') >= 0:
        return place
    return '%s:%d' % (place, _PORTS.get(scheme, 80))
