"""A module whose functions the options name."""


def plain(a, b=2):
    """Adds."""
    return a + b


def failing():
    raise KeyError('nothing')


def numbers(count):
    got = []
    for number in range(count):
        got.append((yield number))
    return_value(got)


def return_value(value):
    return value


class Shop(object):
    def order(self, amount):
        """Orders."""
        return self.price(amount) + 1

    @staticmethod
    def price(amount):
        return amount * 2

    @classmethod
    def name(cls):
        return cls.__name__

    def __len__(self):
        return 5

    value = 7


class Sub(Shop):
    def order(self, amount):
        return super(Sub, self).order(amount) * 10


def job(fails):
    plain(1)
    if fails:
        raise ValueError('job failed')
    return 0
