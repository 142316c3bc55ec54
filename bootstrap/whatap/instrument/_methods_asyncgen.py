"""Asynchronous generators (Python 3.6): what is sent and thrown is handed on."""
from ..tx import current


def traced_async_generator(function, label):
    async def wrapper(*args, **kwargs):
        values = function(*args, **kwargs)
        tx = current()
        step = tx.call(label) if tx is not None else None
        failure = None
        try:
            value = await values.__anext__()
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    await values.aclose()
                    raise
                except BaseException as error:
                    value = await values.athrow(error)
                else:
                    value = await values.asend(sent)
        except StopAsyncIteration:
            return
        except BaseException as error:
            failure = None if isinstance(error, GeneratorExit) else error
            raise
        finally:
            if step is not None:
                step.end(0, failure)
            del failure
    return wrapper
