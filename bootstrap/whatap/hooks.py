"""Instrumentation at import: a table of strings, and the finder that acts on it.

Nothing of a library is imported here. When the program imports a module of the table, the real finders and
loaders do the work; our function gets the module afterwards. A module that was imported before is taken as it is.
"""
import sys

from . import _launch, guard
from ._compat import PY2, get_ident

# (module, file in whatap/instrument, function called with the module)
TABLE = [
    ('flask.app', 'flask', 'instrument'),
    ('sqlite3.dbapi2', 'sqlite3', 'instrument'),
    ('sqlite3', 'sqlite3', 'instrument_package'),
    ('django.core.handlers.wsgi', 'django', 'instrument_wsgi'),
    ('django.core.handlers.asgi', 'django', 'instrument_asgi'),
    ('django.core.handlers.base', 'django', 'instrument_base'),
    ('django.core.handlers.exception', 'django', 'instrument_exception'),
    ('django.db.backends.base.base', 'django', 'instrument_database'),
    ('django.urls.resolvers', 'django', 'instrument_resolvers'),
    ('psycopg2', 'psycopg2', 'instrument'),
    ('psycopg', 'psycopg', 'instrument'),
    ('http.client', 'httpclient', 'instrument'),
    ('httplib', 'httpclient', 'instrument'),
    ('urllib3.connectionpool', 'urllib3', 'instrument'),
    ('logging', 'logging', 'instrument'),
    ('threading', 'threads', 'instrument'),
    ('concurrent.futures.thread', 'futures', 'instrument'),
    ('celery.app.trace', 'celery', 'instrument'),
]

# A value of the option standalone_type.
MULTIPLE = 'multiple-transaction'

_rows = {}
_hooks = []
_switched_off = set()
MAX_HOOKS = 10000


def install(disabled=()):
    """Puts the finder first, and instruments what the program has already imported."""
    for finder in sys.meta_path:
        if type(finder) is Finder:
            return
    _launch.installed = True
    for module, file, function in TABLE:
        if file not in disabled:
            register(module, file, function)
    for kind in ('method', 'service'):
        for module, _ in patterns(kind):
            register(module, 'methods', 'instrument')
    sys.meta_path.insert(0, Finder())
    for name in list(_rows):
        module = sys.modules.get(name)
        if module is not None and not _importing(module):
            ran(name, module)


def patterns(kind):
    """What the options name as steps (`method`) or transactions (`service`): module and target of each."""
    options = _launch.options
    found = options['hook_%s_patterns' % kind]
    if kind == 'service' and options['standalone_enabled'] and options['standalone_type'] == MULTIPLE:
        found += options['standalone_transaction_patterns']
    parts = [pattern.partition(':') for pattern in found]
    return [(module.strip(), target.strip()) for module, colon, target in parts if colon]


def names(module):
    """Whether something is to be done when this module runs."""
    return module in _rows


def register(module, file, function):
    """Adds a row: `function` of `whatap.instrument.<file>`, or a function itself, is called with the module."""
    row = (file, function)
    rows = _rows.setdefault(module, [])
    if row not in rows:
        rows.append(row)


def ran(name, module):
    """The module's own code has run: instrument it."""
    for file, function in _rows.get(name, ()):
        try:
            if callable(function):
                function(module)
            elif _same_version():
                file = 'whatap.instrument.' + file
                __import__(file)
                getattr(sys.modules[file], function)(module)
                _launch.detail('instrumented %s by %s' % (name, file))
        except BaseException:
            # An instrumentation that does not exist, or does not fit the library, is not the program's affair.
            if not guard.ours() and not _import_failed():
                raise


def wrap(owner, name, make_wrapper):
    """Replaces `owner.name` by `make_wrapper(original)`, which keeps the original's looks. Idempotent.

    Static and class methods stay what they are. Nothing happens when there is no such name.
    """
    found = owner.__dict__.get(name) if isinstance(owner, _CLASSES) else None
    if found is None:
        found = getattr(owner, name, None)
        if found is None:
            return None
    kind, original = _unbound(found) if isinstance(owner, _CLASSES) else (None, found)
    if type(getattr(original, '__dict__', None)) is dict and '_whatap' in original.__dict__:
        return original
    wrapper = make_wrapper(original)
    if wrapper is None or wrapper is original:
        return None
    look_like(wrapper, original)
    wrapper._whatap = True
    placed = kind(wrapper) if kind is not None else wrapper
    setattr(owner, name, placed)
    if len(_hooks) < MAX_HOOKS:
        _hooks.append((_file_of(wrapper), owner, name, found, placed))
    return wrapper


def _unbound(found):
    """(staticmethod, classmethod or None, function) of a member of a class.

    Another tracer's stand-in for a function may tell its instance only from how it is bound.
    """
    kind = type(found)
    if kind in (staticmethod, classmethod):
        return kind, found.__func__
    if isinstance(found, staticmethod):
        return staticmethod, found.__get__(None, object)
    if isinstance(found, classmethod):
        return classmethod, look_like(lambda cls, *args, **kwargs: found.__get__(None, cls)(*args, **kwargs), found)
    if kind is not _FUNCTION and hasattr(kind, '__get__'):
        return None, look_like(lambda self, *args, **kwargs: found.__get__(self, type(self))(*args, **kwargs), found)
    return None, found


def look_like(wrapper, original):
    """Gives a wrapper the names, the documentation and the attributes of what it wraps."""
    for key in ('__module__', '__name__', '__qualname__', '__doc__', '__annotations__', '__type_params__'):
        try:
            setattr(wrapper, key, getattr(original, key))
        except (AttributeError, TypeError):
            pass
    own = getattr(original, '__dict__', None)
    if type(own) is dict and own:
        wrapper.__dict__.update(own)
    wrapper.__wrapped__ = original
    return wrapper


def unhook(place):
    """Takes the hooks of an instrumentation file off again, as far as nobody has wrapped them since."""
    _switched_off.add(place)
    for file, owner, name, found, placed in _hooks:
        if file != place:
            continue
        now = owner.__dict__.get(name) if isinstance(owner, _CLASSES) else getattr(owner, name, None)
        if now is placed:
            setattr(owner, name, found)


guard.on_too_many = unhook


class Finder(object):
    """Stands first in sys.meta_path and lets the others find."""

    def __init__(self):
        self._busy = {}

    def find_spec(self, name, path=None, target=None):
        """The spec that the other finders give, whose loader tells us when the module has run."""
        if name not in _rows:
            return None
        key = (name, get_ident())
        if key in self._busy:
            return None
        self._busy[key] = True
        try:
            for finder in list(sys.meta_path):
                find = getattr(finder, 'find_spec', None)
                if finder is self or find is None:
                    continue
                spec = find(name, path, target)
                if spec is not None:
                    _listen(name, spec)
                    return spec
            return None
        finally:
            self._busy.pop(key, None)

    if PY2:
        def find_module(self, name, path=None):
            """Python 2.7: ourselves as the loader, unless we are asking for the real one."""
            if name in _rows and (name, get_ident()) not in self._busy:
                return self
            return None

        def load_module(self, name):
            """The module as the other finders load it."""
            key = (name, get_ident())
            self._busy[key] = True
            try:
                __import__(name, {}, {}, ['*'], 0)
            finally:
                self._busy.pop(key, None)
            module = sys.modules[name]
            ran(name, module)
            return module


def _listen(name, spec):
    loader = spec.loader
    if loader is None:
        return
    if _is_plain(loader):
        _listen_to_instance(name, loader)
    else:
        spec.loader = _Loader(name, loader)


def _is_plain(loader):
    """Loaders of the interpreter that serve one module each."""
    external = sys.modules.get('_frozen_importlib_external') or sys.modules.get('_frozen_importlib')
    return type(loader) in (getattr(external, 'SourceFileLoader', None), getattr(external, 'ExtensionFileLoader', None),
                            getattr(external, 'SourcelessFileLoader', None)) and hasattr(loader, 'exec_module')


def _listen_to_instance(name, loader):
    execute = loader.exec_module

    def exec_module(module):
        loader.__dict__.pop('exec_module', None)
        execute(module)
        ran(name, module)

    loader.exec_module = exec_module


class _Loader(object):
    """Stands in for another loader until the module runs."""

    def __init__(self, name, loader):
        self._name = name
        self._loader = loader
        if hasattr(loader, 'exec_module'):
            self.exec_module = self._exec_module
            if hasattr(loader, 'create_module'):
                self.create_module = loader.create_module
            else:
                self.create_module = _default_module
        elif hasattr(loader, 'load_module'):
            self.load_module = self._load_module

    def __getattr__(self, key):
        return getattr(self._loader, key)

    def _exec_module(self, module):
        self._put_back(module)
        self._loader.exec_module(module)
        ran(self._name, module)

    def _load_module(self, name):
        module = self._loader.load_module(name)
        self._put_back(module)
        ran(self._name, module)
        return module

    def _put_back(self, module):
        spec = getattr(module, '__spec__', None)
        if spec is not None and spec.loader is self:
            spec.loader = self._loader
        if getattr(module, '__loader__', None) is self:
            module.__loader__ = self._loader


_FUNCTION = type(look_like)


def _default_module(spec):
    return None


if PY2:
    import types as _types
    _CLASSES = (type, _types.ClassType)
else:
    _CLASSES = (type,)


def _importing(module):
    """Whether the module's own code is still running."""
    spec = getattr(module, '__spec__', None)
    return bool(getattr(spec, '_initializing', False))


def _same_version():
    """Instrumentation is read late, perhaps after an upgrade on disk: another version's is left alone."""
    from . import VERSION
    try:
        with open(guard.HERE + '_version.py', 'rb', 0) as source:
            text = source.read(4096)
    except (OSError, IOError):
        return VERSION is None
    return VERSION is not None and VERSION.encode('ascii') in text


def _import_failed():
    """Whether one of our own files is missing, or does not fit: an ImportError or SyntaxError of ours."""
    kind, error, trace = sys.exc_info()
    try:
        if not issubclass(kind, (ImportError, SyntaxError, AttributeError, TypeError)):
            return False
        guard.on_failure()
        return True
    finally:
        del error, trace


def _file_of(function):
    code = getattr(function, '__code__', None)
    name = code.co_filename if code is not None else ''
    return name[len(guard.HERE):] if name.startswith(guard.HERE) else name
