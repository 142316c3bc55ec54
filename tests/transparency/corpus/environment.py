from __future__ import print_function
import os
print(sorted((name, value) for name, value in os.environ.items() if name != 'PYTHONPATH' and not name.startswith('WHATAP_')))
print([entry for entry in os.environ.get('PYTHONPATH', '').split(':') if entry and not entry.endswith('/whatap/bootstrap')])
