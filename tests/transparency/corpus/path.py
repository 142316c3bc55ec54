from __future__ import print_function
import os
import sys
ours = [entry for entry in sys.path if entry.endswith('/whatap/bootstrap')]
print([entry for entry in sys.path if entry not in ours])
print(len(ours) <= 1, sys.path_hooks, sorted(name for name in sys.builtin_module_names))
print(os.environ.get('PYTHONPATH', '').split(':').count('/a'))
