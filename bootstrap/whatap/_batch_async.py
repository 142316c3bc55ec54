"""Coroutine functions as batch jobs."""
import sys

from ._api import begin_job, flush


def coroutine_job(function, label):
    async def wrapper(*args, **kwargs):
        tx = begin_job(label)
        if tx is None:
            return await function(*args, **kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            tx.fail(type(error), error, sys.exc_info()[2])
            tx.end()
            flush()
            raise
        tx.end()
        flush()
        return result
    return wrapper
