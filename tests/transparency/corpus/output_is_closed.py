# command: sh -c '{python} main.py >&-; echo $?'
import os
import sys
with open('made', 'w') as file:
    file.write('%s' % sys.stdout)
print('to nobody')
