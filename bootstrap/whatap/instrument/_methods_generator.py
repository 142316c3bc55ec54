"""Generators, for Python 3: `yield from` hands on what is sent and thrown, and the result."""
from ..tx import current


def traced_generator(function, label):
    def wrapper(*args, **kwargs):
        tx = current()
        if tx is None:
            return (yield from function(*args, **kwargs))
        step = tx.call(label)
        try:
            result = yield from function(*args, **kwargs)
        except BaseException as error:
            step.end(0, None if isinstance(error, GeneratorExit) else error)
            raise
        step.end()
        return result
    return wrapper
