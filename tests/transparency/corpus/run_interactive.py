# command: {python} -i -q -c 'print(1)'
# python: 3.6 3.12
# stdin: 1 + 1\nraise SystemExit(4)\n
