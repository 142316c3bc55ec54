"""Coroutines and asynchronous generators that the options name."""
import asyncio


async def wait(seconds):
    await asyncio.sleep(seconds)
    return seconds


async def failing():
    await asyncio.sleep(0)
    raise KeyError('nothing')


async def numbers(count):
    for number in range(count):
        got = yield number
        if got is not None:
            yield got


async def service(fails):
    await wait(0)
    if fails:
        raise ValueError('failed')
    return 7
