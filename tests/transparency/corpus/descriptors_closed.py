# command: sh -c 'exec {python} main.py <&- 3>&1 7</dev/null'
from __future__ import print_function
import os
found = []
for number in range(20):
    try:
        os.fstat(number)
        found.append(number)
    except OSError:
        pass
print(found)
