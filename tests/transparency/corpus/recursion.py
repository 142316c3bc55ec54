from __future__ import print_function
import sys


def depth(number):
    try:
        return depth(number + 1)
    except RuntimeError:
        return number


print(sys.getrecursionlimit(), depth(0))
sys.setrecursionlimit(200)
print(depth(0))
try:
    (lambda f: f(f))(lambda f: f(f))
except RuntimeError as error:
    print(error)
