def add(a, b):
    """Adds."""
    return a + b


def numbers(count):
    try:
        for number in range(count):
            yield number
    finally:
        print('closed')


def fail():
    {}['missing']


def leave():
    raise SystemExit(3)


def interrupt():
    raise KeyboardInterrupt()


class Shop(object):
    def buy(self, count):
        self.count = count
        return count * 2

    @classmethod
    def kind(cls):
        return cls.__name__

    @staticmethod
    def static():
        return 'static'
