# command: {python} -m pack a
print('not this one')
