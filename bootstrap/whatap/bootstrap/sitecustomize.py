"""The one file whose directory is on PYTHONPATH: starts the tracer, then runs the sitecustomize that it hides.

It parses on every Python, raises nothing and prints nothing. On an interpreter that the tracer does not
support it only makes way for the other sitecustomize.
"""
import sys


def _load():
    """The package two levels up, under its name; `sys.path` gains nothing."""
    here = __file__[:__file__.rindex('/')]
    directory = here[:here.rindex('/')]
    known = sys.modules.get('whatap')
    if known is not None:
        return known
    if sys.version_info[0] == 2:
        import imp
        return imp.load_module('whatap', None, directory, ('', '', imp.PKG_DIRECTORY))
    external = sys.modules.get('_frozen_importlib_external') or sys.modules['_frozen_importlib']
    path = directory + '/__init__.py'
    loader = external.SourceFileLoader('whatap', path)
    if sys.version_info < (3, 5):
        return loader.load_module('whatap')
    machinery = sys.modules['_frozen_importlib']
    spec = machinery.ModuleSpec('whatap', loader, origin=path, is_package=True)
    spec.submodule_search_locations.append(directory)
    spec.has_location = True
    module = machinery.module_from_spec(spec)
    sys.modules['whatap'] = module
    try:
        loader.exec_module(module)
    except BaseException:
        sys.modules.pop('whatap', None)
        raise
    return module


def _start():
    if sys.version_info < (2, 7) or (3, 0) <= sys.version_info < (3, 3):
        return
    # Whatever is wrong with us, the program starts. A Ctrl-C at this moment is the program's.
    try:
        _load()
        start = __import__('whatap._start', None, None, ['start'])
        start.start()
    except (EOFError, ValueError):
        _forget_compiled()
    except Exception:
        pass


def _forget_compiled():
    """Removes compiled files that may have been cut by a full disk, as the package does when it can be read."""
    import posix
    here = __file__[:__file__.rindex('/')]
    directory = here[:here.rindex('/')] + '/__pycache__/'
    try:
        for name in posix.listdir(directory):
            if name.endswith('.pyc'):
                posix.unlink(directory + name)
    except OSError:
        pass


def _give_way():
    """Runs the sitecustomize that would have been found without us, once, under its name. Where there is none the import of
    ours fails as it would have failed without us, which `site` takes for what it is, and nothing bears that name."""
    here = __file__[:__file__.rindex('/')]
    mine = sys.modules.get('sitecustomize')
    path = sys.path
    sys.path = [entry for entry in path if not _is(entry, here)]
    sys.modules.pop('sitecustomize', None)
    shortened = sys.path
    before = list(shortened)
    try:
        __import__('sitecustomize')
    finally:
        now = sys.path
        if now is shortened:
            # The list object stays the one that others may hold; what the other one changed is taken over.
            if now != before:
                path[:] = [entry for entry in path if _is(entry, here)] + now
            sys.path = path
        if mine is not None and 'sitecustomize' not in sys.modules:
            # What imports us looks for us under that name, and takes it away when we raise.
            sys.modules['sitecustomize'] = mine


def _is(entry, here):
    return isinstance(entry, str) and entry.rstrip('/') == here


_start()
_give_way()
