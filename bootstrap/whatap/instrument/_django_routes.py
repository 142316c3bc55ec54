"""Routes for Django before 2.2, whose matches do not know them: each resolver that succeeds puts its own pattern in front."""
from .._compat import _thread
from ..guard import guarded
from ..hooks import wrap
from .django import ROUTE

_last = _thread._local()


def instrument(module):
    for leaf in ('RegexURLPattern', 'URLPattern'):
        if hasattr(module, leaf):
            wrap(getattr(module, leaf), 'resolve', traced_leaf)
    for resolver in ('RegexURLResolver', 'URLResolver'):
        if hasattr(module, resolver):
            wrap(getattr(module, resolver), 'resolve', traced_resolver)


def traced_leaf(resolve):
    def wrapper(self, path):
        match = resolve(self, path)
        if match is not None:
            remember(self, '')
        return match
    return wrapper


def traced_resolver(resolve):
    def wrapper(self, path):
        match = resolve(self, path)
        # The last one that succeeded is below this one: resolving stops at the first success.
        remember(self, getattr(_last, 'route', ''))
        attach(match)
        return match
    return wrapper


@guarded
def remember(pattern, below):
    own = text(pattern)
    if below.startswith('^'):
        below = below[1:]
    _last.route = ('' if own == '^/' else own) + below


@guarded
def attach(match):
    match.__dict__[ROUTE] = _last.route


def text(pattern):
    inner = getattr(pattern, 'pattern', None)  # Django 2.0
    if inner is not None:
        return getattr(inner, '_route', None) or getattr(getattr(inner, 'regex', None), 'pattern', '')
    return pattern.regex.pattern
