# command: {python} app a
print('not this one')
