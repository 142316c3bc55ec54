"""Coroutine functions as steps and as transactions."""
import sys

from ..tx import FUNCTION, begin, current


def traced_coroutine(function, label):
    async def wrapper(*args, **kwargs):
        tx = current()
        if tx is None:
            return await function(*args, **kwargs)
        step = tx.call(label)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            step.end(0, error)
            raise
        step.end()
        return result
    return wrapper


def service_coroutine(function, label):
    as_step = traced_coroutine(function, label)

    async def wrapper(*args, **kwargs):
        tx = begin(None, label, kind=FUNCTION)
        if tx is None:
            return await as_step(*args, **kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            tx.fail(type(error), error, sys.exc_info()[2])
            tx.end()
            raise
        tx.end()
        return result
    return wrapper
