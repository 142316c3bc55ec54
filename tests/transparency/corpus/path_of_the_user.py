# env: PYTHONPATH=/a::/b:/a
from __future__ import print_function
import sys
print([entry for entry in sys.path if not entry.endswith('/whatap/bootstrap')])
