from __future__ import print_function
import sys


def hook(kind, value, trace):
    names = []
    while trace:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    print('hook', kind.__name__, value, names)


print(sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__)
print(sys.exc_info())
sys.excepthook = hook
raise KeyError('seen by the hook')
