"""ASGI applications: `@whatap.register_asgi_app`, and what Django's handler shares with it."""
from ..guard import guarded
from ..tx import begin

_HEADERS = frozenset((b'host', b'user-agent', b'referer', b'traceparent', b'tracestate'))


def register_asgi_app(application):
    """Decorator: every HTTP request to this ASGI 3 application is a transaction."""
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
    client = scope.get('client')
    return begin(
        scope.get('method'), scope.get('path'), found.get(b'host'), client[0] if client else None,
        found.get(b'user-agent'), found.get(b'referer'), found.get(b'traceparent'), found.get(b'tracestate'))
