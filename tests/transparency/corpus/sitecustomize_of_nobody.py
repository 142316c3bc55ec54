from __future__ import print_function
import sys
try:
    import sitecustomize
    print('found')
except ImportError as error:
    print(type(error), error)
print('sitecustomize' in sys.modules)
