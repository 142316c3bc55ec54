# python: 3.6
# command: {python} -X faulthandler main.py
import ctypes
import os
os.write(1, b'alive\n')
ctypes.string_at(0)
