"""ASGI applications, called as a server would call them."""
import asyncio
import inspect
import unittest

import sink

sink.start()

from whatap.instrument.asgi import register_asgi_app  # noqa: E402

SCOPE = {'type': 'http', 'method': 'GET', 'path': '/x', 'query_string': b'secret=1', 'client': ('10.0.0.9', 5), 'headers': [
    (b'host', b'shop.example'), (b'user-agent', b'curl'), (b'cookie', b'secret'),
    (b'traceparent', b'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'), (b'tracestate', b'a=b')]}


def call(application, scope=SCOPE, events=(), timeout=None):
    """What the application sent."""
    sent = []

    async def receive():
        await asyncio.sleep(0)
        return {'type': 'http.request', 'body': b'', 'more_body': False}

    async def send(message):
        sent.append(message)

    async def main():
        await asyncio.wait_for(application(scope, receive, send), timeout)

    asyncio.run(main())
    return sent


class Requests(sink.Traced):
    def test_request(self):
        @register_asgi_app
        async def application(scope, receive, send):
            """Answers."""
            await receive()
            await send({'type': 'http.response.start', 'status': 201, 'headers': []})
            await send({'type': 'http.response.body', 'body': b'ok'})

        self.assertEqual([message['type'] for message in call(application)], ['http.response.start', 'http.response.body'])
        frame = self.frame()
        self.assertEqual((frame['name'], frame['method'], frame['path'], frame['status'], frame['host'], frame['client'], frame['agent']),
                         ('/x', 'GET', '/x', 201, 'shop.example', '10.0.0.9', 'curl'))
        self.assertEqual((frame['trace'], frame['parent'], frame['tracestate']), ('0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331', 'a=b'))
        self.assertNotIn('secret', repr(frame))
        self.assertTrue(inspect.iscoroutinefunction(application))
        self.assertEqual((application.__name__, application.__doc__), ('application', 'Answers.'))

    def test_stream_lasts_until_its_last_part(self):
        async def application(scope, receive, send):
            from whatap import tx
            await send({'type': 'http.response.start', 'status': 200})
            for number in range(3):
                await asyncio.sleep(0.05)
                tx.current().call('part').end()
                await send({'type': 'http.response.body', 'body': b'x', 'more_body': number < 2})
            await asyncio.sleep(0.3)  # work after the answer
            self.assertIsNone(tx.current())

        call(register_asgi_app(application))
        frame = self.frame()
        self.assertEqual(len(frame['steps']), 3)
        self.assertTrue(140000 < frame['duration'] < 400000, frame['duration'])

    def test_exception_passes(self):
        async def application(scope, receive, send):
            raise ZeroDivisionError('no')

        with self.assertRaises(ZeroDivisionError):
            call(register_asgi_app(application))
        frame = self.frame()
        self.assertEqual((frame['error_class'], frame['error_message'], frame['status']), ('ZeroDivisionError', 'no', 500))
        self.assertIn('raise ZeroDivisionError', frame['error_stack'])

    def test_cancellation_passes_and_is_no_error(self):
        async def application(scope, receive, send):
            await asyncio.sleep(10)

        with self.assertRaises(asyncio.TimeoutError):
            call(register_asgi_app(application), timeout=0.05)
        frame = self.frame()
        self.assertEqual((frame['error_class'], frame['status'], frame['flags'] & 1), ('', 499, 0))

    def test_client_that_goes_away(self):
        async def application(scope, receive, send):
            await send({'type': 'http.response.start', 'status': 200})
            raise ConnectionResetError

        with self.assertRaises(ConnectionResetError):
            call(register_asgi_app(application))
        self.assertEqual(self.frame()['status'], 200)

    def test_other_protocols_are_left_alone(self):
        seen = []

        async def application(scope, receive, send):
            seen.append((scope, receive, send))

        async def receive():
            return {}

        async def send(message):
            return None

        scope = {'type': 'lifespan'}
        asyncio.run(register_asgi_app(application)(scope, receive, send))
        self.assertEqual(seen, [(scope, receive, send)])
        self.assertIs(seen[0][0], scope)
        self.assertEqual(sink.take(), [])

    def test_task_of_the_request_that_begins_a_transaction_of_its_own(self):
        async def application(scope, receive, send):
            from whatap import tx

            async def child():
                self.assertIsNone(tx.begin(None, 'job', kind=tx.FUNCTION))
                tx.current().call('child').end()

            await asyncio.get_running_loop().create_task(child())
            await send({'type': 'http.response.start', 'status': 200})
            await send({'type': 'http.response.body', 'body': b''})

        call(register_asgi_app(application))
        frame = self.frame()
        self.assertEqual((frame['path'], frame['status'], [step['a'] for step in frame['steps']]), ('/x', 200, ['child']))

    def test_requests_side_by_side(self):
        async def application(scope, receive, send):
            from whatap import tx
            for _ in range(5):
                tx.current().call(scope['path']).end()
                await asyncio.sleep(0)
            await send({'type': 'http.response.start', 'status': 200})
            await send({'type': 'http.response.body', 'body': b''})

        traced = register_asgi_app(application)

        async def send(message):
            await asyncio.sleep(0)

        async def main():
            await asyncio.gather(*[traced(dict(SCOPE, path='/%d' % number), None, send) for number in range(20)])

        asyncio.run(main())
        found = sink.take()
        self.assertEqual(len(found), 20)
        for frame in found:
            self.assertEqual([step['a'] for step in frame['steps']], [frame['path']] * 5)

    def test_odd_scopes_and_messages(self):
        async def application(scope, receive, send):
            await send('no dictionary')

        for scope in ({'type': 'http'}, {'type': 'http', 'path': b'\xff', 'method': 7, 'headers': [(b'host', b'\xff')], 'client': None},
                      {'type': 'http', 'method': 'GET', 'path': '/\udcff', 'headers': [(b'traceparent', b'\xff' * 5000)]}):
            self.assertEqual(call(register_asgi_app(application), dict(scope)), ['no dictionary'])
        sink.take()


if __name__ == '__main__':
    unittest.main()
