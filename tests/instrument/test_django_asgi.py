"""Django's ASGI handler with the sample shop."""
import asyncio
import os
import shutil
import sys
import tempfile
import unittest

import sink

sink.start()

directory = tempfile.mkdtemp(prefix='wdj')
os.environ['DATABASE_URL'] = 'sqlite:///' + os.path.join(directory, 'shop.sqlite3')
os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'
sys.path.insert(0, os.path.join(sink.APPS, 'django_shop'))
sys.dont_write_bytecode = True

import django  # noqa: E402

if django.VERSION < (3, 1):
    raise unittest.SkipTest('this Django has no async views')

application = None


def setUpModule():
    global application
    from django.core import management
    from django.core.asgi import get_asgi_application
    import logging
    application = get_asgi_application()
    logging.getLogger().handlers = [logging.NullHandler()]
    logging.getLogger('django').handlers = [logging.NullHandler()]
    management.call_command('migrate', verbosity=0)
    with open(os.devnull, 'w') as nowhere:
        management.call_command('seed', orders=30, stdout=nowhere)


def tearDownModule():
    from django.db import connections
    for connection in connections.all():
        connection.close()
    shutil.rmtree(directory, ignore_errors=True)


async def call(path, leave_after=None):
    """(status, body) of a request whose client goes away after so many seconds, if at all."""
    path, _, query = path.partition('?')
    scope = {'type': 'http', 'asgi': {'version': '3.0'}, 'http_version': '1.1', 'method': 'GET', 'path': path, 'raw_path': path.encode(), 'root_path': '',
             'query_string': query.encode(), 'scheme': 'http', 'headers': [(b'host', b'shop.example')], 'client': ('10.0.0.7', 1), 'server': ('s', 80)}
    asked, sent = [], []

    async def receive():
        asked.append(1)
        if len(asked) == 1:
            return {'type': 'http.request', 'body': b'', 'more_body': False}
        await asyncio.sleep(30 if leave_after is None else leave_after)
        return {'type': 'http.disconnect'}

    async def send(message):
        sent.append(message)

    await application(scope, receive, send)
    body = b''.join(message.get('body', b'') for message in sent)
    return (sent[0]['status'] if sent else None), body


class Shop(sink.Traced):
    def test_synchronous_view(self):
        self.assertEqual(asyncio.run(call('/report?customers=4'))[0], 200)
        frame = self.frame()
        self.assertEqual([frame[key] for key in ('name', 'method', 'path', 'status', 'host', 'client')], ['/report', 'GET', '/report', 200, 'shop.example', '10.0.0.7'])
        self.assertEqual([step['kind'] for step in frame['steps'] if step['kind'] != 'dbc'], ['sql'] * 5)

    def test_asynchronous_views_side_by_side(self):
        async def main():
            return await asyncio.gather(*[call('/async?seconds=0.1') for _ in range(20)])
        self.assertEqual(asyncio.run(main()), [(200, b'{"waited": 0.1}')] * 20)
        found = sink.take()
        self.assertEqual([(frame['name'], frame['status'], frame['attributes']['code.function.name']) for frame in found],
                         [('/async', 200, 'orders.async_views.wait')] * 20)
        self.assertTrue(all(90000 < frame['duration'] < 3000000 for frame in found))

    def test_exception(self):
        self.assertEqual(asyncio.run(call('/fail'))[0], 500)
        frame = self.frame()
        self.assertEqual((frame['status'], frame['error_class'], frame['name']), (500, 'orders.views.PaymentError', '/fail'))
        self.assertIn('\0charge\0raise refused', frame['error_stack'])

    @unittest.skipIf(django.VERSION < (4, 2), 'this Django runs generators of a stream in the event loop')
    def test_stream(self):
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            status, body = asyncio.run(call('/stream?rows=5'))
        self.assertEqual((status, len(body.splitlines())), (200, 6))
        self.assertEqual((self.frame()['name']), '/stream')

    @unittest.skipIf(django.VERSION < (5, 0), 'this Django does not listen for disconnects')
    def test_client_that_goes_away(self):
        asyncio.run(call('/async?seconds=5', leave_after=0.1))
        frame = self.frame()
        self.assertEqual((frame['name'], frame['status'], frame['flags'] & 1), ('/async', 499, 0))
        self.assertLess(frame['duration'], 3000000)

    def test_lifespan_is_refused_as_ever(self):
        async def main():
            await application({'type': 'lifespan'}, None, None)
        with self.assertRaises(ValueError):
            asyncio.run(main())
        self.assertEqual(sink.take(), [])

    def test_handler_is_a_coroutine_function_as_ever(self):
        self.assertTrue(asyncio.iscoroutinefunction(type(application).__call__))


if __name__ == '__main__':
    unittest.main()
