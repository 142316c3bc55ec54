"""Flask with the sample stock service."""
import os
import shutil
import sys
import tempfile
import unittest

import peer
import sink
import wsgi_client

sink.start()

directory = tempfile.mkdtemp(prefix='wfl')
server = peer.Peer()
os.environ['STOCK_DB'] = os.path.join(directory, 'stock.sqlite3')
os.environ['PEER_URL'] = server.url + '/peer'
sys.path.insert(0, os.path.join(sink.APPS, 'flask_stock'))
sys.dont_write_bytecode = True

import logging  # noqa: E402

import stock  # noqa: E402

logging.getLogger().handlers = [logging.NullHandler()]
stock.app.logger.handlers = [logging.NullHandler()]


def tearDownModule():
    server.close()
    stock.pool.shutdown()
    shutil.rmtree(directory, ignore_errors=True)


def request(path, **more):
    return wsgi_client.request(stock.app, path, **more)


class Stock(sink.Traced):
    def test_request(self):
        self.assertEqual(request('/')[2], b'hello')
        frame = self.frame()
        self.assertEqual([frame[key] for key in ('name', 'method', 'path', 'status', 'host', 'client')], ['/', 'GET', '/', 200, 'shop.example', '10.0.0.7'])

    def test_statements_are_seen_once(self):
        request('/stock/7')
        frame = self.frame()
        self.assertEqual(frame['name'], '/stock/<int:sku>')
        self.assertEqual([(step['kind'], step['a'], step['b']) for step in frame['steps']], [
            ('dbc', os.environ['STOCK_DB'], 'sqlite'), ('sql', 'SELECT name, price FROM article WHERE sku = ?', 'sqlite'),
            ('sql', 'SELECT shelf, amount FROM stock WHERE sku = ?', 'sqlite')])
        request('/sql?n=17')
        self.assertEqual(len(self.steps('sql')), 17)

    def test_exception(self):
        self.assertTrue(request('/fail')[0].startswith('500'))
        frame = self.frame()
        self.assertEqual((frame['error_class'], frame['error_message'], frame['status']), ('stock.OutOfStock', 'only 2 of article 404 left, 3 wanted', 500))
        self.assertIn('\0reserve\0raise OutOfStock', frame['error_stack'])

    def test_not_found_is_no_error(self):
        for path, name in (('/stock/9999', '/stock/<int:sku>'), ('/nothing', '/nothing')):
            self.assertTrue(request(path)[0].startswith('404'))
            frame = self.frame()
            self.assertEqual((frame['name'], frame['status'], frame['error_class'], frame['flags'] & 1), (name, 404, '', 0))

    def test_handled_errors_are_failed_steps_only(self):
        for path, kind, error in (('/unreachable', 'http', 'Connection'), ('/bad-sql', 'sql', 'no such table: warehouse')):
            self.assertTrue(request(path)[0].startswith('200'))
            frame = self.frame()
            self.assertEqual((frame['status'], frame['error_class'], frame['flags'] & 1), (200, '', 0))
            failed = [step for step in frame['steps'] if step['failed']]
            self.assertEqual([step['kind'] for step in failed], [kind])
            self.assertIn(error, failed[0]['d'])
        self.assertIn(b'handled: no such table', request('/bad-sql')[2])
        request('/')
        self.assertEqual([frame['status'] for frame in sink.take()], [200, 200])

    def test_outgoing_call_carries_the_trace(self):
        del server.requests[:]
        request('/chain', HTTP_TRACEPARENT='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')
        step = self.steps('http')[0]
        self.assertEqual((step['a'], step['value']), (server.url + '/peer', 200))
        self.assertEqual(server.requests[0][2]['traceparent'], '00-0af7651916cd43dd8448eb211c80319c-%s-01' % step['span'])

    def test_thread_pool(self):
        request('/thread')
        self.assertEqual([step['a'] for step in self.steps('sql')], ['SELECT sum(amount) FROM stock WHERE sku = ?'] * 4)


if __name__ == '__main__':
    unittest.main()
