# fails: it is not caught
def outer():
    return inner()


def inner():
    raise ValueError('not caught')


outer()
