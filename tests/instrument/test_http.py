"""Outgoing calls: one step each, whichever libraries they pass through."""
import re
import socket
import time
import unittest

import requests
import urllib3
try:
    from http import client as httplib
    from urllib.request import urlopen
except ImportError:  # Python 2.7
    import httplib
    from urllib2 import urlopen

import peer
import sink


def free_port():
    place = socket.socket()
    place.bind(('127.0.0.1', 0))
    port = place.getsockname()[1]
    place.close()
    return port


class Calls(sink.Traced):
    @classmethod
    def setUpClass(cls):
        sink.start()
        cls.peer = peer.Peer()

    @classmethod
    def tearDownClass(cls):
        cls.peer.close()

    def setUp(self):
        del self.peer.requests[:]
        super(Calls, self).setUp()

    def only_call(self):
        steps = self.steps()
        self.assertEqual(len(steps), 1, steps)
        self.assertEqual(steps[0]['kind'], 'http')
        return steps[0]

    def assert_ok(self, path='/here', status=200):
        step = self.only_call()
        self.assertEqual((step['a'], step['b'], step['c'], step['value'], step['failed']),
                         (self.peer.url + path, 'GET', '127.0.0.1:%d' % self.peer.port, status, False))
        header = self.peer.requests[-1][2]['traceparent']
        self.assertTrue(re.match('00-[0-9a-f]{32}-' + step['span'] + '-0[01]$', header), header)
        return step

    def test_http_client(self):
        with self.transaction():
            connection = httplib.HTTPConnection('127.0.0.1', self.peer.port)
            connection.request('GET', '/here?secret=1', headers={'X-A': 'b'})
            self.assertEqual(connection.getresponse().read(), b'x' * 10)
            connection.close()
        self.assert_ok()
        self.assertEqual(self.peer.requests[0][1], '/here?secret=1')

    def test_kept_connection_gives_one_step_per_request(self):
        with self.transaction():
            connection = httplib.HTTPConnection('127.0.0.1', self.peer.port)
            for path in ('/one', '/two', '/missing'):
                connection.request('GET', path)
                connection.getresponse().read()
            connection.close()
        self.assertEqual([(step['a'][len(self.peer.url):], step['value']) for step in self.steps()], [('/one', 200), ('/two', 200), ('/missing', 404)])

    def test_urlopen(self):
        with self.transaction():
            urlopen(self.peer.url + '/here').read()
        self.assert_ok()

    def test_urllib3(self):
        pool = urllib3.PoolManager()
        with self.transaction():
            self.assertEqual(pool.request('GET', self.peer.url + '/here').data, b'x' * 10)
        self.assert_ok()
        pool.clear()

    def test_requests(self):
        headers = {'X-A': 'b'}
        with self.transaction():
            answer = requests.get(self.peer.url + '/here', headers=headers, params={'password': 'hunter2'})
        self.assert_ok()
        self.assertEqual(headers, {'X-A': 'b'})
        self.assertNotIn('traceparent', [key.lower() for key in answer.request.headers])

    def test_post_with_chunks(self):
        with self.transaction():
            requests.post(self.peer.url + '/here', data=b'abc')
        self.assertEqual(self.only_call()['b'], 'POST')
        self.assertEqual(self.peer.requests[0][3], b'abc')

    def test_redirect_is_two_calls(self):
        with self.transaction():
            requests.get(self.peer.url + '/redirect')
        self.assertEqual([step['value'] for step in self.steps()], [302, 200])

    def test_own_header_of_the_caller_stays(self):
        mine = '00-11111111111111111111111111111111-2222222222222222-01'
        with self.transaction():
            requests.get(self.peer.url + '/here', headers={'Traceparent': mine})
        self.assertEqual(self.peer.requests[0][2]['traceparent'], mine)

    def test_trace_is_continued(self):
        from whatap import tx
        t = tx.begin('GET', '/', traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', tracestate='a=b')
        requests.get(self.peer.url + '/here')
        t.end(200)
        step = self.only_call()
        self.assertEqual(self.peer.requests[0][2]['traceparent'], '00-0af7651916cd43dd8448eb211c80319c-%s-01' % step['span'])
        self.assertEqual(self.peer.requests[0][2]['tracestate'], 'a=b')

    def test_outside_a_transaction_nothing_is_added(self):
        requests.get(self.peer.url + '/here')
        self.assertNotIn('traceparent', self.peer.requests[0][2])
        self.assertEqual(sink.take(), [])

    def test_refused(self):
        port = free_port()
        for scheme in ('http', 'https'):
            with self.transaction():
                with self.assertRaises(requests.ConnectionError):
                    requests.get('%s://127.0.0.1:%d/x' % (scheme, port))
            step = self.only_call()
            self.assertTrue(step['failed'])
            self.assertEqual((step['a'], step['value']), ('%s://127.0.0.1:%d/x' % (scheme, port), 0))
            self.assertIn('Connection', step['d'])

    def test_refused_without_urllib3(self):
        with self.transaction():
            with self.assertRaises(socket.error):
                httplib.HTTPConnection('127.0.0.1', free_port()).request('GET', '/')
        step = self.only_call()
        self.assertTrue(step['failed'])

    def test_server_hangs_up(self):
        with self.transaction():
            with self.assertRaises(requests.ConnectionError):
                requests.get(self.peer.url + '/hang')
        self.assertTrue(self.only_call()['failed'])

    def test_retries_are_calls_of_their_own(self):
        pool = urllib3.PoolManager(retries=urllib3.Retry(2, backoff_factor=0))
        with self.transaction():
            with self.assertRaises(urllib3.exceptions.MaxRetryError):
                pool.request('GET', 'http://127.0.0.1:%d/' % free_port())
        self.assertEqual([step['failed'] for step in self.steps('http')], [True] * 3)

    def test_user_information_and_query_stay_home(self):
        with self.transaction():
            requests.get('http://bob:hunter2@127.0.0.1:%d/here?token=hunter2#hunter2' % self.peer.port)
        self.assertNotIn('hunter2', repr(self.frame()))

    def test_through_a_proxy(self):
        with self.transaction():
            requests.get('http://shop.example/here?a=1', proxies={'http': 'http://u:hunter2@127.0.0.1:%d' % self.peer.port})
        step = self.only_call()
        self.assertEqual((step['a'], step['c']), ('http://shop.example/here', 'shop.example:80'))

    def test_answer_never_read(self):
        with self.transaction():
            connection = httplib.HTTPConnection('127.0.0.1', self.peer.port)
            connection.request('GET', '/here')
            connection.close()
        self.assertEqual(self.only_call()['value'], 0)
        for _ in range(500):
            if self.peer.requests:
                break
            time.sleep(0.01)

    def test_more_calls_than_steps_are_kept(self):
        from whatap import policy
        with self.transaction() as t:
            connection = httplib.HTTPConnection('127.0.0.1', self.peer.port)
            for _ in range(policy.max_steps):
                t.message('m', 't')
            connection.request('GET', '/here')
            connection.getresponse().read()
            connection.close()
        self.assertTrue(self.peer.requests[0][2]['traceparent'].startswith('00-'))

    def test_looks(self):
        method = httplib.HTTPConnection.__dict__['putrequest']
        self.assertEqual((method.__name__, method.__module__), ('putrequest', httplib.__name__))
        self.assertTrue(method.__doc__)
        self.assertTrue(method.__wrapped__)

    def test_wrong_arguments_raise_as_ever(self):
        connection = httplib.HTTPConnection('127.0.0.1', self.peer.port)
        with self.transaction():
            with self.assertRaises(TypeError):
                connection.putrequest()
            with self.assertRaises(httplib.HTTPException):
                connection.getresponse()


if __name__ == '__main__':
    unittest.main()
