"""The tracer's public interface.

Importing it starts nothing and costs next to nothing. Everything here leaves the application as it was when there
is no tracer: the same results, the same exceptions, each function called exactly once.
"""
from ._version import VERSION

__version__ = VERSION
__all__ = ['agent', 'batch_profiling', 'method_profiling', 'register_app', 'register_asgi_app']


# What the interpreter raises for a compiled file that has been cut.
UNREADABLE = (EOFError, ValueError)


def forget_compiled():
    """Removes the compiled forms of our files. One that was written while the disk was full may be cut, and the interpreter
    would stumble over it for ever; whoever imports next makes them anew."""
    import posix
    for directory in __path__:
        for place in (directory + '/__pycache__/', directory + '/instrument/__pycache__/'):
            try:
                for name in posix.listdir(place):
                    if name.endswith('.pyc'):
                        posix.unlink(place + name)
            except OSError:
                pass  # not there, or not ours to change


def _part(name):
    """One of our modules, or None if it cannot be imported."""
    for _ in range(2):
        try:
            return __import__('whatap.' + name, None, None, ['*'])
        except UNREADABLE:
            forget_compiled()
        except Exception:
            break
    return None


def agent():
    """Starts the tracer from code, for programs that no launcher started. Whether it is on."""
    start = _part('_start')
    try:
        return start is not None and start.start(by_code=True)
    except Exception:
        return False


def register_app(application):
    """Decorator: the requests of a WSGI application are transactions."""
    api = _part('_api')
    return application if api is None else api.wsgi_application(application)


def register_asgi_app(application):
    """Decorator: the requests of an ASGI application are transactions."""
    asgi = _part('instrument.asgi')
    return application if asgi is None else asgi.register_asgi_app(application)


def method_profiling(function):
    """Decorator: each call is a transaction, or a step of the one that it happens in."""
    api = _part('_api')
    return function if api is None else api.profiled(function)


def batch_profiling(function):
    """Decorator for batch jobs: each call is a transaction, which has been handed on when the call returns."""
    api = _part('_api')
    return function if api is None else api.batch(function)
