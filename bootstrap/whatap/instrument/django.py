"""Django: WSGI and ASGI requests, the route that matched, the view, and the exception that became an answer.

Statements are seen by the drivers' own files: Django's SQLite through `sqlite3.py`, PostgreSQL through `psycopg2.py` or `psycopg.py`.
"""
import sys

from ..guard import guarded, ours
from ..hooks import wrap
from ..tx import NO_STEP, activate, current, deactivate
from . import wsgi
from ._database import target

ROUTE = '_whatap_route'
MAX_NAMES = 1000
PORTS = {'postgresql': '5432', 'mysql': '3306', 'oracle': '1521'}

_names = {}


def instrument_wsgi(module):
    """`django.core.handlers.wsgi`"""
    wrap(module.WSGIHandler, '__call__', traced_call)


def instrument_asgi(module):
    """`django.core.handlers.asgi`"""
    from . import asgi
    if not asgi.contexts:
        return
    from . import _asgi
    wrap(module.ASGIHandler, '__call__', _asgi.traced_method)


def instrument_base(module):
    """`django.core.handlers.base`"""
    handler = module.BaseHandler
    if hasattr(handler, 'resolve_request'):  # Django 3.1
        wrap(handler, 'resolve_request', traced_resolve_request)
    else:
        wrap(handler, 'get_response', traced_get_response)
    from . import _django_middleware
    wrap(module, 'convert_exception_to_response', _django_middleware.traced_convert)


def instrument_exception(module):
    """`django.core.handlers.exception`"""
    wrap(module, 'response_for_exception', traced_response_for_exception)


def instrument_database(module):
    """`django.db.backends.base.base`"""
    wrap(module.BaseDatabaseWrapper, 'connect', traced_connect)


def instrument_resolvers(module):
    """`django.urls.resolvers`"""
    if not hasattr(getattr(module, 'URLResolver', None), '_join_route'):  # before Django 2.2 a match does not know its route
        from . import _django_routes
        _django_routes.instrument(module)


def traced_call(call):
    def wrapper(self, environ, start_response):
        tx = wsgi.begin_request(environ, start_response)
        if tx is None:
            return call(self, environ, start_response)
        try:
            response = call(self, environ, tx.respond)
        except BaseException:
            wsgi.failed(tx)
            raise
        if getattr(response, 'streaming', None) is False:
            tx.finish()  # complete as it is: no need to follow it
            return response
        return wsgi.returned(tx, response)
    return wrapper


def traced_resolve_request(resolve_request):
    def wrapper(self, request):
        match = resolve_request(self, request)
        tx = current()
        if tx is not None:
            name(tx, match)
        return match
    return wrapper


def traced_get_response(get_response):
    def wrapper(self, request):
        tx = current()
        if tx is None:
            return get_response(self, request)
        try:
            return get_response(self, request)
        finally:
            match = request.__dict__.get('resolver_match')
            if match is not None:
                name(tx, match)
    return wrapper


def traced_response_for_exception(response_for_exception):
    def wrapper(request, exc):
        tx = current()
        if tx is not None:
            failed(tx, exc)
        return response_for_exception(request, exc)
    return wrapper


def traced_connect(connect):
    """Connecting is one step: what Django asks every new connection (time zone, pragmas) is part of it, not of the request's statements."""
    def wrapper(self):
        tx = current()
        if tx is None:
            return connect(self)
        step = begin_connect(tx, self) or NO_STEP
        outside = activate(None)
        try:
            result = connect(self)
        except BaseException as error:
            deactivate(outside)
            step.end(0, error)
            raise
        deactivate(outside)
        step.end()
        return result
    return wrapper


@guarded
def begin_connect(tx, wrapper):
    settings = wrapper.settings_dict
    system, name = wrapper.vendor, settings.get('NAME')
    if type(name) is not str and hasattr(type(name), '__fspath__'):
        name = type(name).__fspath__(name)
    return tx.dbc(name if system == 'sqlite' else target(settings.get('HOST'), settings.get('PORT') or PORTS.get(system), name), system)


@guarded
def failed(tx, error):
    tx.handle(type(error), error, getattr(error, '__traceback__', None) or sys.exc_info()[2])


def name(tx, match):
    try:
        state = match.__dict__
        route = state.get('route')
        if route is None:
            route = state.get(ROUTE)
        if route is not None:
            tx.set_name(_names.get(route) or readable(route))
        view = state.get('_func_path')
        if view is not None:
            tx.set_function(view)
    except BaseException:
        if not ours():
            raise


def readable(route):
    """`^orders/(?P<pk>[0-9]+)/$` as `/orders/<pk>/`; a path's route as it is."""
    text = route
    if '(' in text or '^' in text or '\\' in text or '$' in text:
        text = without_groups(text)
    if not text.startswith('/'):
        text = '/' + text
    if len(_names) < MAX_NAMES:
        _names[route] = text
    return text


def without_groups(pattern):
    """A regular expression as people would write the path: groups by their name, no anchors, no escapes."""
    found = []
    place, end = 0, len(pattern)
    while place < end:
        character = pattern[place]
        if character == '(':
            close = closing(pattern, place)
            found.append(group(pattern[place:close]))
            place = close
            while place < end and pattern[place] in '?*+':
                place += 1
        elif character == '\\' and place + 1 < end:
            following = pattern[place + 1]
            found.append(following if not following.isalnum() else '' if following in 'AZbB' else '<' + following + '>')
            place += 2
        elif character in '^$?':
            place += 1
        else:
            found.append(character)
            place += 1
    return ''.join(found)


def group(text):
    if text.startswith('(?P<'):
        return '<' + text[4:text.find('>')] + '>'
    if text.startswith(('(?:', '(?i', '(?=', '(?!', '(?<')):
        return without_groups(text[3:-1]) if text.startswith('(?:') and '|' not in text else ''
    return '<>'


def closing(pattern, place):
    """Behind the parenthesis that closes the one at `place`."""
    depth, in_class = 0, False
    while place < len(pattern):
        character = pattern[place]
        if character == '\\':
            place += 1
        elif in_class:
            in_class = character != ']'
        elif character == '[':
            in_class = True
            if pattern[place + 1:place + 2] in (']', '^'):
                place += 1
        elif character == '(':
            depth += 1
        elif character == ')':
            depth -= 1
            if depth == 0:
                return place + 1
        place += 1
    return len(pattern)
