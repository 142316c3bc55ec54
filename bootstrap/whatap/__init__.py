"""The tracer's public interface.

Importing it starts nothing and costs next to nothing. Everything here leaves the application as it was when there
is no tracer: the same results, the same exceptions, each function called exactly once.
"""
from ._version import VERSION

__version__ = VERSION
__all__ = ['agent', 'batch_profiling', 'method_profiling', 'register_app', 'register_asgi_app']


def agent():
    """Starts the tracer from code, for programs that no launcher started. Whether it is on."""
    from . import _start
    try:
        return _start.start(by_code=True)
    except Exception:
        return False


def register_app(application):
    """Decorator: the requests of a WSGI application are transactions."""
    from . import _api
    return _api.wsgi_application(application)


def register_asgi_app(application):
    """Decorator: the requests of an ASGI application are transactions."""
    from .instrument import asgi
    return asgi.register_asgi_app(application)


def method_profiling(function):
    """Decorator: each call is a transaction, or a step of the one that it happens in."""
    from . import _api
    return _api.profiled(function)


def batch_profiling(function):
    """Decorator for batch jobs: each call is a transaction, which has been handed on when the call returns."""
    from . import _api
    return _api.batch(function)
