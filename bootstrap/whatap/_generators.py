"""Generators as transactions, for Python 3. The transaction is the context's only while the generator runs."""
import sys

from .tx import activate, deactivate


def service_generator(function, label, as_step, begin, after):
    """`function` as a transaction from its first value to its end, `after` which something may be called; inside another
    transaction it is a step."""
    def wrapper(*args, **kwargs):
        tx = begin(label)
        if tx is None:
            return (yield from as_step(*args, **kwargs))
        try:
            inner = function(*args, **kwargs)
            resume, value = inner.send, None
            while True:
                try:
                    item = resume(value)
                except StopIteration as stop:
                    return stop.value
                deactivate(None)
                try:
                    value = yield item
                    resume = inner.send
                except GeneratorExit:
                    activate(tx)
                    inner.close()
                    raise
                except BaseException:
                    resume, value = inner.throw, sys.exc_info()[1]
                activate(tx)
        except GeneratorExit:
            raise
        except BaseException as error:
            tx.fail(type(error), error, error.__traceback__)
            raise
        finally:
            tx.end()
            if after is not None:
                after()
    return wrapper
