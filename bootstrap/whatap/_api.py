"""What the public decorators do. Loaded when the first of them is used."""
import sys

from . import guard, tx as transactions
from .hooks import look_like
from .instrument import methods, wsgi
from .tx import FUNCTION, TASK, begin

# A batch job's process may be gone, with its container, right after the job.
FLUSH_MS = 1000

_function = type(look_like)


def wsgi_application(application):
    """The application with transactions; one whose class is instrumented already as it is."""
    if '_whatap' in getattr(getattr(type(application), '__call__', None), '__dict__', ()):
        return application
    if isinstance(application, _function):
        return look_like(wsgi.middleware(application), application)
    return _Application(application)


class _Application(object):
    """An application that is an object: called through us, otherwise as it is."""

    def __init__(self, application):
        self.__wrapped__ = application
        self._whatap_call = wsgi.middleware(application)

    def __call__(self, environ, start_response):
        return self._whatap_call(environ, start_response)

    def __getattr__(self, name):
        return getattr(self.__wrapped__, name)


def profiled(function):
    """Decorates a function, method, coroutine function or generator function."""
    if not isinstance(function, _function):
        return function
    label = _label(function)
    if function.__code__.co_flags & _GENERATOR:
        made = _generator(function, label, _begin_function, None)
    else:
        made = methods.service(function, label)
    return made if made is function else look_like(made, function)


_GENERATOR = 0x20


def _begin_function(label):
    return begin(None, label, kind=FUNCTION)


def _generator(function, label, begin, after):
    try:
        from . import _generators
    except SyntaxError:
        # Python 2.7 cannot hand a generator's values on unchanged.
        return function
    return _generators.service_generator(function, label, methods.method(function, label), begin, after)


def _label(function):
    return '%s:%s' % (function.__module__, getattr(function, '__qualname__', function.__name__))


def batch(function):
    """Decorates a batch job: a function, method, coroutine function or generator function."""
    if not isinstance(function, _function):
        return function
    label = _label(function)
    flags = function.__code__.co_flags
    if flags & _ASYNC_GENERATOR:
        return function
    if flags & _COROUTINE:
        from ._batch_async import coroutine_job
        return look_like(coroutine_job(function, label), function)
    if flags & _GENERATOR:
        made = _generator(function, label, begin_job, flush)
        return made if made is function else look_like(made, function)

    def wrapper(*args, **kwargs):
        tx = begin_job(label)
        if tx is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException:
            kind, error, trace = sys.exc_info()
            tx.fail(kind, error, trace)
            del error, trace
            tx.end()
            flush()
            raise
        tx.end()
        flush()
        return result
    return look_like(wrapper, function)


_COROUTINE, _ASYNC_GENERATOR = 0x80, 0x200


def begin_job(label):
    """The transaction of a job that begins now. Its process may have been started without a launcher."""
    try:
        _join_agent()
    except BaseException:
        if not guard.ours():
            raise
    return begin(None, label, kind=TASK)


_joined = False


def _join_agent():
    """Once: the agent of the home for batch jobs, which whatap-start-batch-agent has started, or that starts now."""
    global _joined
    if _joined:
        return
    _joined = True
    from . import _program, _start
    names = 'WHATAP_HOME_BATCH', 'WHATAP_BATCH_HOME', 'WHATAP_HOME'
    homes = [home for home in map(_program.environment, names) if home]
    if homes:
        _start.start(by_code=True, home=homes[0])


def flush():
    """Waits until the collector has handed on what we have, for FLUSH_MS at most."""
    try:
        transactions._ring.flush(FLUSH_MS)
    except BaseException:
        if not guard.ours():
            raise
