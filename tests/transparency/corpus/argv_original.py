# command: {python} -W ignore -X utf8 main.py a b
# python: 3.10
import sys
print(sys.orig_argv, sys._xoptions, sys.warnoptions)
