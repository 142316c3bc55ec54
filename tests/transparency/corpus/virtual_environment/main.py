# command: sh -c '{python} -m venv --without-pip env && exec env/bin/python main.py'
# python: 3.6
import sys
import os
print(sys.prefix, sys.base_prefix, sys.executable)
print([entry for entry in sys.path if not entry.endswith('/whatap/bootstrap')])
try:
    import pip
    print('pip is there')
except ImportError as error:
    print(error)
