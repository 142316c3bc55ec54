# python: 3.8
# fails: in a finalizer
import sys


class Mine:
    def __del__(self):
        raise ValueError('in a finalizer')


def hook(what):
    print(what.exc_type, what.object.__name__)


one = Mine()
del one
sys.unraisablehook = hook
two = Mine()
del two
print('the rest goes on')
