"""Django's middleware: what each one did before and after those below it is a step if it took time.

Each layer asks the clock twice; all else happens only when one of them was slow. Asynchronous layers are left alone.
"""
from .. import tx as transactions
from .._compat import clock
from ..guard import guarded
from ..hooks import look_like
from . import _past

_COROUTINE = 0x80
_function = type(lambda: None)


def traced_convert(convert):
    """Around `convert_exception_to_response`, which the handler calls for each layer, the innermost first."""
    def wrapper(get_response):
        layer = convert(get_response)
        if getattr(getattr(layer, '__code__', None), 'co_flags', 0) & _COROUTINE:
            return layer
        return look_like(timed(layer, label_of(get_response)), layer)
    return wrapper


def timed(layer, label, clock=clock):
    def wrapper(request):
        started = clock()
        response = layer(request)
        ended = clock()
        if ended - started > _past.FROM:
            slow(label, started, ended)
        return response
    return wrapper


@guarded
def label_of(get_response):
    """`module:Class` of a middleware; None for the handler's own innermost layer, which leads to the view."""
    if hasattr(get_response, '__self__'):
        return None
    kind = get_response if type(get_response) is _function else type(get_response)
    return '%s:%s' % (kind.__module__, getattr(kind, '__qualname__', kind.__name__))


@guarded
def slow(label, started, ended):
    """A layer and all below it took so long: the layer's own share becomes steps. Those below have been here before it."""
    tx = transactions.current()
    if tx is None:
        return
    below = tx.__dict__.get('middleware')
    if label is not None:
        if below is None or below[0] < started:
            below = ended, ended
        for begin, end in ((started, below[0]), (below[1], ended)):
            if end - begin > _past.FROM:
                _past.record(tx, transactions.METHOD, begin, end, 0, label)
    tx.middleware = started, ended
