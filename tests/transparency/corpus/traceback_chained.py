# fails: it is not caught
# python: 3.6
def work():
    try:
        {}['missing']
    except KeyError as error:
        raise RuntimeError('chained') from error


try:
    work()
finally:
    print('finally')
