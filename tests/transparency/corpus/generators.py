from __future__ import print_function


def numbers():
    try:
        for number in range(5):
            yield number
    finally:
        print('closed')


for number in numbers():
    if number == 2:
        break
generator = numbers()
next(generator)
try:
    generator.throw(ValueError('thrown in'))
except ValueError as error:
    print(error)
generator = numbers()
next(generator)
generator.close()
