"""ASGI applications: `@whatap.register_asgi_app`, and what Django's handler shares with it."""
from .. import policy, tx as transactions
from ..guard import guarded
from ..tx import begin

# Before Python 3.7 the requests of one event loop cannot be told apart.
contexts = hasattr(transactions.context, 'reset')

_HEADERS = frozenset((b'host', b'user-agent', b'referer', b'traceparent', b'tracestate'))


def register_asgi_app(application):
    """Decorator: every HTTP request to this ASGI 3 application is a transaction."""
    if not contexts:
        return application
    from . import _asgi
    return _asgi.traced_application(application)


@guarded
def begin_request(scope):
    """The transaction of an HTTP scope, or None."""
    if scope.get('type') != 'http':
        return None
    found = {}
    for key, value in scope.get('headers', ()):
        if key in _HEADERS and key not in found:
            found[key] = value.decode('latin-1')
    path, method, client = scope.get('path'), scope.get('method'), scope.get('client')
    client = client[0] if client else None
    if policy.client_of is not None:
        client = policy.client_of(client, lambda key: header(scope, key))
    return begin(
        method if type(method) is str else None, path if type(path) is str else '/', found.get(b'host'), client,
        found.get(b'user-agent'), found.get(b'referer'), found.get(b'traceparent'), found.get(b'tracestate'))


def header(scope, key):
    """A header by its name in a WSGI environment."""
    name = key[5:].replace('_', '-').lower().encode('ascii')
    for header_name, value in scope['headers']:
        if header_name == name:
            return value.decode('latin-1')
    return None
