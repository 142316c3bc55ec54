# command: sh -c 'd=$({python} -c "import site; print(site.getusersitepackages())") && mkdir -p "$d" && cp mine.py "$d/usercustomize.py" && exec {python} main.py'
# env: PYTHONUSERBASE={here}/base
from __future__ import print_function
import site
import sys
print(site.ENABLE_USER_SITE, 'usercustomize' in sys.modules)
