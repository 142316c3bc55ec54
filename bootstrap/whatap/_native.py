"""Extension modules of the interpreter, loaded for us alone.

`import zlib` may find the user's `zlib.py`, and would leave a module in `sys.modules` that the program did
not import. So the shared object of the standard library is loaded under a private name. What is built in,
or already loaded from the standard library, is taken as it is.
"""
import sys

_loaded = {}


def load(name):
    """The extension module `name` of the standard library; ImportError if there is none."""
    module = _loaded.get(name)
    if module is None:
        module = _loaded[name] = _find(name)
    return module


def _find(name):
    if name in sys.builtin_module_names:
        return __import__(name)
    path = _path(name)
    known = sys.modules.get(name)
    if known is not None and path is not None and _file(known) == path:
        # Initialising such a module again could replace its exception classes under the program.
        return known
    if path is None:
        raise ImportError(name)
    private = '_whatap.' + name
    before = sys.modules.get(private)
    try:
        return _create(private, path)
    finally:
        if before is None:
            sys.modules.pop(private, None)


def _create(private, path):
    if sys.version_info[0] == 2:
        import imp
        return imp.load_dynamic(private, path)
    machinery = sys.modules.get('_frozen_importlib')
    external = sys.modules.get('_frozen_importlib_external') or machinery
    loader = external.ExtensionFileLoader(private, path)
    if sys.version_info < (3, 5):
        return loader.load_module(private)
    spec = machinery.ModuleSpec(private, loader, origin=path)
    module = loader.create_module(spec)
    loader.exec_module(module)
    return module


def _path(name):
    """Where the standard library's shared object of that name is."""
    import posix
    for directory in _directories():
        for suffix in _suffixes():
            path = directory + '/' + name + suffix
            try:
                posix.stat(path)
            except OSError:
                continue
            return path
    return None


def _directories():
    # Only directories below the interpreter's own prefix: never one that PYTHONPATH names.
    prefixes = [getattr(sys, key, None) for key in ('base_exec_prefix', 'exec_prefix', 'base_prefix', 'real_prefix', 'prefix')]
    version = 'python%d.%d' % tuple(sys.version_info[:2])
    library = getattr(sys, 'platlibdir', 'lib')
    found = []
    for prefix in prefixes:
        if not isinstance(prefix, str):
            continue
        for lib in (library, 'lib', 'lib64'):
            directory = '%s/%s/%s/lib-dynload' % (prefix, lib, version)
            if directory not in found:
                found.append(directory)
    for entry in sys.path:
        if isinstance(entry, str) and entry.endswith('/lib-dynload') and entry not in found:
            for prefix in prefixes:
                if isinstance(prefix, str) and entry.startswith(prefix):
                    found.append(entry)
                    break
    return found


def _suffixes():
    if sys.version_info[0] == 2:
        import imp
        return [suffix for suffix, _, kind in imp.get_suffixes() if kind == imp.C_EXTENSION]
    import _imp
    return _imp.extension_suffixes()


def _file(module):
    try:
        return module.__file__
    except Exception:
        return None
