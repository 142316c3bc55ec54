# command: {python}
# stdin: print(6 * 7)\n
