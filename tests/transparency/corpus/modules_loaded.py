"""Only private names come to the modules that a program has loaded."""
from __future__ import print_function
import sys
print(sorted(name for name in sys.modules if name.split('.')[0] not in ('whatap', '_whatap') and sys.modules[name] is not None
             and name not in sys.builtin_module_names and name not in ('_frozen_importlib', 'importlib._bootstrap')))
print(len(sys.meta_path) <= 5, [type(hook).__name__ for hook in sys.path_hooks])
try:
    import builtins
except ImportError:
    import __builtin__ as builtins
print(sorted(vars(builtins)))
print(builtins.__import__, builtins.open)
