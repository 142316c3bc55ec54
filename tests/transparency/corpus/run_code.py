# command: {python} -c 'import sys; print(sys.argv, sys.path[0], __name__, sorted(globals()))' a b
