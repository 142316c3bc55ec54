"""Django's own handlers with the sample shop."""
import io
import os
import shutil
import sys
import tempfile
import time
import unittest

import sink
import wsgi_client

sink.start()

directory = tempfile.mkdtemp(prefix='wdj')
os.environ['DATABASE_URL'] = 'sqlite:///' + os.path.join(directory, 'shop.sqlite3')
os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'
os.environ['STOCK_URL'] = 'http://127.0.0.1:1'
sys.path.insert(0, os.path.join(sink.APPS, 'django_shop'))
sys.dont_write_bytecode = True

import django  # noqa: E402
from django.core import management  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

application = None


def setUpModule():
    global application
    application = get_wsgi_application()
    import logging
    logging.getLogger().handlers = [logging.NullHandler()]
    logging.getLogger('django').handlers = [logging.NullHandler()]
    management.call_command('migrate', verbosity=0)
    management.call_command('seed', orders=30, stdout=io.StringIO() if str is not bytes else io.BytesIO())


def tearDownModule():
    from django.db import connections
    connections.close_all() if hasattr(connections, 'close_all') else [one.close() for one in connections.all()]
    shutil.rmtree(directory, ignore_errors=True)


def request(path, app=None, **more):
    return wsgi_client.request(app or application, path, **more)


class Quick(object):
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)


class SlowBefore(Quick):
    def __call__(self, request):
        time.sleep(0.02)
        return self.get_response(request)


class SlowAfter(Quick):
    def __call__(self, request):
        response = self.get_response(request)
        time.sleep(0.02)
        return response


class Shop(sink.Traced):
    def test_request(self):
        self.assertEqual(request('/health')[2], b'ok')
        frame = self.frame()
        self.assertEqual([frame[key] for key in ('name', 'method', 'path', 'status', 'host', 'client', 'agent', 'error_class')],
                         ['/health', 'GET', '/health', 200, 'shop.example', '10.0.0.7', 'curl', ''])
        self.assertEqual(frame['steps'], [])
        self.assertEqual(frame['attributes'].get('code.function.name'), 'orders.views.health')

    def test_name_is_the_route(self):
        for path, name in (('/', '/'), ('/orders/3/', '/orders/<int:pk>/' if django.VERSION >= (2, 0) else '/orders/<pk>/'), ('/orders/', '/orders/'),
                           ('/report?customers=1', '/report'), ('/nothing/here', '/nothing/here')):
            request(path)
            self.assertEqual(self.frame()['name'], name)

    def test_statements_are_seen_once(self):
        request('/health')
        sink.take()
        request('/report?customers=4')
        steps = self.steps()
        self.assertEqual([step['kind'] for step in steps], ['dbc'] + ['sql'] * 5, [step['a'] for step in steps])
        self.assertEqual((steps[0]['a'], steps[0]['b']), (os.path.join(directory, 'shop.sqlite3'), 'sqlite'))
        del steps[0]
        self.assertTrue(all(step['b'] == 'sqlite' and not step['failed'] for step in steps))
        self.assertIn('LIMIT 4', steps[0]['a'])
        self.assertIn('%s' if '%s' in steps[1]['a'] else '?', steps[1]['a'])

    def test_not_found_is_no_error(self):
        self.assertTrue(request('/orders/99999/')[0].startswith('404'))
        frame = self.frame()
        self.assertEqual((frame['status'], frame['error_class'], frame['flags'] & 1), (404, '', 0))
        errors = [step for step in frame['steps'] if step['kind'] == 'error']
        self.assertEqual([step['a'] for step in errors], ['django.http.response.Http404'] if sys.version_info[0] > 2 else [step['a'] for step in errors])

    def test_exception_with_its_stack_and_cause(self):
        self.assertTrue(request('/fail')[0].startswith('500'))
        frame = self.frame()
        self.assertEqual((frame['name'], frame['status'], frame['flags'] & 1), ('/fail', 500, 1))
        self.assertEqual((frame['error_class'], frame['error_message']), ('orders.views.PaymentError', 'the bank sent no receipt'))
        lines = [line.split('\0') for line in frame['error_stack'].splitlines()]
        self.assertEqual((lines[-1][2], lines[-1][3]), ('charge', 'raise refused'))
        self.assertTrue(lines[-1][0].endswith('orders/views.py'))
        if sys.version_info[0] > 2:
            self.assertEqual([line[1:3] for line in lines if line[0] == 'cause'], [['KeyError', 'receipt']])
        self.assertNotIn('whatap', frame['error_stack'].replace(sink.ROOT, ''))

    def test_stream_is_seen_to_its_end(self):
        status, body = request('/stream?rows=5', consume=False)
        self.assertEqual(sink.take(), [])
        self.assertFalse(hasattr(body, '__len__'))
        self.assertEqual(len(b''.join(body).splitlines()), 6)
        body.close()
        frame = self.frame()
        self.assertEqual((frame['name'], frame['status']), ('/stream', 200))
        self.assertEqual([step['kind'] for step in frame['steps'] if step['kind'] == 'sql'], ['sql'])

    def test_complete_response_is_given_as_it_is(self):
        from django.http import HttpResponse
        self.assertIs(type(request('/health', consume=False)[1]), HttpResponse)
        sink.take()

    def test_outgoing_call_that_fails(self):
        self.assertTrue(request('/call-flask')[0].startswith('502'))
        frame = self.frame()
        calls = [step for step in frame['steps'] if step['kind'] == 'http']
        self.assertEqual([(step['a'], step['failed']) for step in calls], [('http://127.0.0.1:1/stock/1', True)])
        self.assertEqual(frame['error_class'], '')

    def test_log_records(self):
        request('/log')
        logs = [(step['c'], step['b'], step['a'].split('\n')[0]) for step in self.steps('log')]
        self.assertEqual(logs, [('WARNING', 'orders.views', 'order 17 is 4 days late'), ('ERROR', 'orders.views', 'order 17 cannot be charged')])

    def test_trace_context(self):
        request('/health', HTTP_TRACEPARENT='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')
        self.assertEqual(self.frame()['trace'], '0af7651916cd43dd8448eb211c80319c')
        for odd in ('', 'a,b,c', '\0', u'\u20ac', '00-' + 'x' * 9000, 'ff-' + '0' * 60):
            self.assertTrue(request('/health', HTTP_TRACEPARENT=odd)[0].startswith('200'))
        sink.take()

    def test_answers_are_the_same_as_without_a_tracer(self):
        bare = application.__class__.__call__.__wrapped__
        for path in ('/', '/orders/', '/orders/3/', '/orders/99999/', '/report', '/fail', '/stream?rows=3', '/log', '/nothing'):
            self.assertEqual(request(path), request(path, lambda environ, start: bare(application, environ, start)), path)
        sink.take()

    def test_exception_of_a_middleware_and_debug_page(self):
        from django.conf import settings
        from django.test.utils import override_settings
        with override_settings(DEBUG=True):
            body = request('/fail')[2]
        self.assertIn(b'PaymentError', body)
        self.assertEqual(self.frame()['error_class'], 'orders.views.PaymentError')
        with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True):
            with self.assertRaises(Exception) as caught:
                request('/fail')
        self.assertEqual(type(caught.exception).__name__, 'PaymentError')
        self.assertEqual((settings.DEBUG, self.frame()['error_class']), (False, 'orders.views.PaymentError'))

    def test_middleware_is_a_step_only_if_it_took_time(self):
        from django.conf import settings
        from django.test.utils import override_settings
        classes = ['%s.%s' % (__name__, name) for name in ('SlowBefore', 'Quick', 'SlowAfter')]
        with override_settings(MIDDLEWARE=list(settings.MIDDLEWARE) + classes):
            with sink.slow_from(15):
                request('/health', get_wsgi_application())
        frame = self.frame()
        self.assertEqual([(step['kind'], step['a']) for step in frame['steps'] if step['a'].startswith(__name__)],
                         [('method', __name__ + ':SlowAfter'), ('method', __name__ + ':SlowBefore')])
        after, before = [step for step in frame['steps'] if step['a'].startswith(__name__)]
        self.assertLess(before['start'], after['start'])
        for step in (before, after):
            self.assertTrue(20000 <= step['duration'] <= frame['duration'], step)

    def test_a_slow_view_is_not_the_middlewares_time(self):
        with sink.slow_from(15):
            request('/slow?seconds=0.2')
        frame = self.frame()
        self.assertGreater(frame['duration'], 200000)
        took = sum(step['duration'] for step in frame['steps'] if step['kind'] == 'method')
        self.assertLessEqual(took, frame['duration'] - 200000, frame['steps'])

    def test_handler_looks_as_ever(self):
        from django.core.handlers.wsgi import WSGIHandler
        self.assertEqual((WSGIHandler.__call__.__name__, WSGIHandler.__call__.__module__), ('__call__', 'django.core.handlers.wsgi'))


class Attributes(sink.Traced):
    def test_function_and_others(self):
        with self.transaction() as t:
            t.set_function('orders.views.order')
            t.set('plan', 'gold')
        self.assertEqual(self.frame()['attributes'], {'code.function.name': 'orders.views.order', 'plan': 'gold'})


class Routes(unittest.TestCase):
    def test_patterns_as_people_write_them(self):
        from whatap.instrument.django import readable
        for pattern, expected in (
                ('', '/'), ('orders/<int:pk>/', '/orders/<int:pk>/'), ('^orders/(?P<pk>[0-9]+)/$', '/orders/<pk>/'), (r'^a/(\d+)/b$', '/a/<>/b'),
                (r'^v(?P<v>[1-9](?:\.\d)?)/(?:x/)?y\.json$', '/v<v>/x/y.json'), (r'^(?P<a>[)(]+)/(?P<b>\)x)$', '/<a>/<b>'), (r'^\w+/$', '/<w>+/'),
                ('^$', '/'), ('^(', '/<>'), ('\\', '/\\'), ('^(?P<', '/<>'), (r'api/^items/(?P<id>\d+)', '/api/items/<id>')):
            self.assertEqual(readable(pattern), expected, pattern)

    def test_any_pattern_has_a_name(self):
        import random
        from whatap.instrument.django import without_groups
        rng = random.Random(5)
        for _ in range(3000):
            without_groups(''.join(rng.choice('^$()[]\\?P<>:|*+x/') for _ in range(rng.randint(0, 30))))


if __name__ == '__main__':
    unittest.main()
