"""WSGI: the transaction of one request, from the call to the end of the response's body.

The application is called exactly once, and what it returns reaches the server. A list, a tuple or a file wrapper
goes through as the same object; another iterable is followed to its end, by itself if it can tell us about it
(`followers`), else by a stand-in.
"""
import sys

from whatap import _launch, _program, guard, policy, tx as transactions
from whatap._compat import is_ascii, latin, map, next_of

_begin = transactions.begin_with

_REQUEST = ('REQUEST_METHOD', 'PATH_INFO', 'HTTP_HOST', 'REMOTE_ADDR', 'HTTP_USER_AGENT', 'HTTP_REFERER')

# Type of result -> function (tx, result) that gets `tx.finish` called when the result is closed; False: it cannot.
followers = {}
# The same for all classes below one. Looked up once for each class.
followers_below = {}
MAX_FOLLOWERS = 200


_client_of = None


def _choose(options):
    global _client_of
    _client_of = policy.client_of


_launch.listeners.append(_choose)
_choose(None)


def middleware(application):
    """A WSGI application that does what `application` does, as transactions."""
    def traced(environ, start_response):
        tx = begin_request(environ, start_response)
        if tx is None:
            return application(environ, start_response)
        try:
            result = application(environ, tx.respond)
        except BaseException:
            failed(tx)
            raise
        return returned(tx, result)
    return traced


def wrap_method(original):
    """For `hooks.wrap`: the method `(self, environ, start_response)` of an application class."""
    def wrapper(self, environ, start_response):
        tx = begin_request(environ, start_response)
        if tx is None:
            return original(self, environ, start_response)
        try:
            result = original(self, environ, tx.respond)
        except BaseException:
            failed(tx)
            raise
        if tx.whole:
            tx.end(tx.answer)
            return result
        return returned(tx, result)
    return wrapper


def wrap_inner_method(original):
    """The same for a method that the wrapped one calls for the same request."""
    traced = wrap_method(original)
    context = transactions._get

    def wrapper(self, environ, start_response):
        tx = context()
        if tx is not None and tx.environ is environ:
            return original(self, environ, start_response)
        return traced(self, environ, start_response)
    return wrapper


def _first_request(environ, start_response=None):
    """In a process's first request a setting may be found that has no effect: Apache's SetEnv names a home too late."""
    global begin_request
    begin_request = _begin_request
    try:
        home = environ.get('WHATAP_HOME')
        if home and home != _program.environment('WHATAP_HOME'):
            from whatap import _log
            _log.note('WHATAP_HOME=%s is a variable of requests only (SetEnv?) and has no effect: the process needs it' % home)
    except BaseException:
        if not guard.ours():
            raise
    return _begin_request(environ, start_response)


def _begin_request(environ, start_response=None):
    """Begins the transaction of a request; None if it is not to be one. `tx.respond` then is the start_response."""
    tx = None
    try:
        get = environ.get
        request = tuple(map(get, _REQUEST))
        try:
            usual = is_ascii(request[1])
        except TypeError:
            usual = False
        if not usual or get('SCRIPT_NAME') or _client_of is not None:
            request = _unusual(request, get)
        tx = _begin(request, environ, get('HTTP_TRACEPARENT'))
        if tx is not None:
            tx.start_response = start_response
            tx.answer = None
        return tx
    except BaseException:
        mine = guard.ours()
        if tx is not None:
            tx.end()
        if not mine:
            raise
        return None


begin_request = _first_request


def _unusual(request, get):
    """The request of an application below a prefix, of a path beyond ASCII, or of a client behind a proxy."""
    method, path, host, client, agent, referer = request
    path = (_text(get('SCRIPT_NAME')) + _text(path)) or '/'
    if not is_ascii(path):
        path = latin(path)
    if _client_of is not None:
        client = _client_of(client, get)
    return method, path, host, client, agent, referer


def _text(value):
    return value if type(value) is str else ''


def failed(tx):
    """Inside an except block: the application raised."""
    kind, error, trace = sys.exc_info()
    try:
        tx.fail(kind, error, trace)
    finally:
        del error, trace
        tx.end(500)


def returned(tx, result):
    """The application returned: the transaction ends now, or with the body. What to give to the server."""
    try:
        kind = type(result)
        if tx.whole or kind is list or kind is tuple:
            tx.finish()
            return result
        follow = followers.get(kind, _unknown)
        if follow is not None and follow(tx, result):
            tx.returned = True
            return result
        wrapper = tx.environ.get('wsgi.file_wrapper')
        if kind is wrapper or result is None:
            # The server must get its own object back, and an application's mistake as it is.
            tx.finish()
            return result
        body = (_Sized if hasattr(kind, '__len__') else _Body)(tx, result)
        tx.returned = True
        return body
    except BaseException:
        if not guard.ours():
            tx.finish()
            raise
        return result


def _unknown(tx, result):
    """The first result of this type: finds who can follow such results."""
    kind = type(result)
    found = None
    for base in type.__dict__['__mro__'].__get__(kind):
        found = followers_below.get(base)
        if found is not None:
            break
    if len(followers) < MAX_FOLLOWERS:
        followers[kind] = found
    return found is not None and found(tx, result)


class _Body(object):
    """Stands in for a response's iterable until it is closed, exhausted or dropped."""

    __slots__ = ('_tx', '_result', '_next', '__weakref__')

    def __init__(self, tx, result):
        self._tx = tx
        self._result = result
        self._next = None

    def __iter__(self):
        return _follow(self._tx, iter(self._result))

    def __next__(self):
        if self._next is None:
            self._next = next_of(iter(self))
        return self._next()

    next = __next__

    def close(self):
        """Closes what the application returned, and ends the transaction."""
        tx = self._tx
        try:
            close = getattr(self._result, 'close', None)
            if close is not None:
                close()
        except BaseException:
            failed(tx)
            raise
        tx.finish()

    def __getattr__(self, name):
        return getattr(self._result, name)

    def __del__(self):
        self._tx.finish()


class _Sized(_Body):
    """The same for what has a length."""

    __slots__ = ()

    def __len__(self):
        return len(self._result)


def _follow(tx, iterator):
    try:
        for chunk in iterator:
            yield chunk
    except GeneratorExit:
        raise
    except BaseException:
        kind, error, trace = sys.exc_info()
        tx.fail(kind, error, trace)
        del error, trace
        raise
    tx.finish()
