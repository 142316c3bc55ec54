"""The asynchronous half of `asgi.py`.

A transaction lasts until the last part of the body has been sent, or the application returns or raises without that. Messages pass
as they are; cancellation passes through.
"""
import asyncio
import sys

from ..hooks import look_like
from .asgi import begin_request

CLIENT_CLOSED_REQUEST = 499  # no answer was begun: the client has gone, or the server will answer for us


def traced_application(application):
    async def wrapper(scope, receive, send):
        return await run(application, (), scope, receive, send)
    return look_like(wrapper, application)


def traced_method(call):
    """`call` is the `__call__` of a handler's class."""
    async def wrapper(self, scope, receive, send):
        return await run(call, (self,), scope, receive, send)
    return wrapper


async def run(call, head, scope, receive, send):
    tx = begin_request(scope)
    if tx is None:
        return await call(*head, scope, receive, send)

    tx.returned = None  # ended below, wherever its tasks run

    async def traced_send(message):
        kind = message.get('type') if type(message) is dict else None
        if kind == 'http.response.start':
            tx.status = message.get('status', 0)
            return await send(message)
        result = await send(message)
        if kind == 'http.response.body' and not message.get('more_body'):
            tx.end(tx.status)
        return result

    try:
        result = await call(*head, scope, receive, traced_send)
    except BaseException as error:
        if not isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            tx.fail(type(error), error, sys.exc_info()[2])
            tx.end(tx.status or 500)
        raise
    finally:
        tx.end(tx.status or CLIENT_CLOSED_REQUEST)
    return result
