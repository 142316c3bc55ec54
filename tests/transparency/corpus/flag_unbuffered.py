# python: 3.7
# command: {python} -u main.py
import os
import sys
sys.stdout.write('first ')
os._exit(0)
