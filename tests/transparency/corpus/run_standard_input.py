# command: {python} - a b
# stdin: import sys\nprint(sys.argv)\nprint(sys.stdin.read())\n
