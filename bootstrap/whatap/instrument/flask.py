"""Flask: requests named by their URL rule, and the exceptions that Flask makes answers of."""
import sys

from whatap import guard, hooks, tx as transactions
from whatap.instrument import wsgi
from whatap.tx import LIVE


def instrument(module):
    """`flask.app`"""
    flask = module.Flask
    hooks.wrap(flask, '__call__', wsgi.wrap_method)
    # Applications may be put behind middleware by either name.
    hooks.wrap(flask, 'wsgi_app', wsgi.wrap_inner_method)
    hooks.wrap(flask, 'full_dispatch_request', _named)
    hooks.wrap(flask, 'handle_exception', _unhandled)
    hooks.wrap(flask, 'handle_user_exception', lambda original: _handled(original, module.HTTPException))
    iterator = _closing_iterator()
    if iterator is not None:
        wsgi.followers[iterator] = _follow


def _named(original):
    """Around `full_dispatch_request`: the URL has been matched, nothing has been called yet."""
    context = transactions._get

    def wrapper(self, *args):
        tx = context()
        if tx is None or tx.state != LIVE:
            return original(self, *args)
        try:
            rule = tx.environ['werkzeug.request'].url_rule
            if rule is not None:
                tx.set_name(rule.rule)
        except BaseException:
            _note()
        response = original(self, *args)
        try:
            if type(response.response) is list and not response._on_close:
                # Nothing of it is made while it is sent: it need not be followed.
                tx.whole = True
        except BaseException:
            _note()
        return response
    return wrapper


def _note():
    """Inside an except block: another framework's request, or a fault of ours."""
    if not issubclass(sys.exc_info()[0], (AttributeError, KeyError, TypeError)) and not guard.ours():
        raise


def _unhandled(original):
    def wrapper(self, *args, **kwargs):
        tx = transactions.current()
        if tx is not None:
            _remember(tx.fail)
        return original(self, *args, **kwargs)
    return wrapper


def _handled(original, http_exception):
    def wrapper(self, *args, **kwargs):
        tx = transactions.current()
        if tx is not None and not isinstance(sys.exc_info()[1], http_exception):
            _remember(tx.handle)
        return original(self, *args, **kwargs)
    return wrapper


def _remember(note):
    kind, error, trace = sys.exc_info()
    try:
        if error is not None:
            note(kind, error, trace)
    finally:
        del error, trace


def _closing_iterator():
    """Werkzeug's iterable that calls functions when it is closed; None if it has another shape."""
    module = sys.modules.get('werkzeug.wsgi')
    return getattr(module, 'ClosingIterator', None)


def _follow(tx, result):
    callbacks = result.__dict__.get('_callbacks')
    if type(callbacks) is not list:
        return False
    callbacks.append(_Closing(tx, type(result)))
    return True


class _Closing(object):
    """Called last when the response is closed."""

    __slots__ = ('_tx', '_kind')

    def __init__(self, tx, kind):
        self._tx = tx
        self._kind = kind

    def __call__(self):
        tx = self._tx
        kind, error, trace = sys.exc_info()
        if error is not None:
            _fail_from(tx, kind, error, trace, self._kind)
        del error, trace
        tx.finish()

    def __del__(self):
        self._tx.finish()


def _fail_from(tx, kind, error, trace, iterator):
    """The exception in flight is the response's if it came through its iterator, not the server's writing."""
    code = getattr(getattr(iterator, '__next__', getattr(iterator, 'next', None)), '__code__', None)
    at = trace
    while at is not None:
        if at.tb_frame.f_code is code:
            tx.fail(kind, error, trace)
            break
        at = at.tb_next
    del at, trace, error
