# env: PYTHONPATH={here}/mine
from __future__ import print_function
import sys
import sitecustomize
print(sitecustomize.__name__, sitecustomize.__file__.split('/')[-2], sitecustomize.times, sys.path.count('/added'))
