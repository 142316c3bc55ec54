"""WSGI: the application is called once, what it returns reaches the server, the transaction lasts as long as the body."""
import os
import shutil
import tempfile
import time
import unittest

from traced import Traced
import whatap
from whatap import _launch, tx as transactions
from whatap.instrument import wsgi


class FileWrapper(object):
    def __init__(self, source, size=8192):
        self.source = source

    def __iter__(self):
        return iter([b'file'])

    def close(self):
        pass


class Body(object):
    """An iterable with a close of its own."""

    def __init__(self, chunks):
        self.chunks = chunks
        self.closed = 0

    def __iter__(self):
        return iter(self.chunks)

    def close(self):
        self.closed += 1


class Sized(Body):
    def __len__(self):
        return len(self.chunks)


class Requests(Traced):
    def setUp(self):
        super(Requests, self).setUp()
        self.attach()
        self.calls = []
        self.started = []

    def environ(self, path='/', **more):
        made = {'REQUEST_METHOD': 'GET', 'PATH_INFO': path, 'SCRIPT_NAME': '', 'HTTP_HOST': 'h', 'REMOTE_ADDR': '1.2.3.4',
                'wsgi.file_wrapper': FileWrapper}
        made.update(more)
        return made

    def start_response(self, *args):
        self.started.append(args)
        return self.started.append

    def application(self, result, status='200 OK'):
        @whatap.register_app
        def application(environ, start_response):
            self.calls.append(environ)
            start_response(status, [('X', 'y')])
            return result(environ) if callable(result) else result
        return application

    def frames(self, count):
        return self.others(count)

    def test_lists_and_tuples_are_the_same_objects(self):
        for result in ([b'x'], (b'x',), [], ()):
            environ = self.environ()
            self.assertIs(self.application(result)(environ, self.start_response), result)
            self.assertIs(self.calls[-1], environ)
        self.assertEqual(len(self.calls), 4)
        self.assertEqual([frame['status'] for frame in self.frames(4)], [200] * 4)

    def test_a_home_that_only_requests_name_is_noted_once(self):
        home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, home)
        os.mkdir(home + '/logs')
        _launch.take('1;_name=%s;_home=%s' % (self.name, home))
        wsgi.begin_request = wsgi._first_request
        application = self.application([b'x'])
        for _ in range(3):
            application(self.environ(WHATAP_HOME='/srv/of-apache'), self.start_response)
        with open(home + '/logs/whatap-hook.log') as source:
            self.assertEqual(source.read().count('WHATAP_HOME=/srv/of-apache'), 1)
        self.assertEqual(len(self.frames(3)), 3)

    def test_the_status_and_the_arguments_reach_the_server(self):
        write = []

        @whatap.register_app
        def application(environ, start_response):
            write.append(start_response('404 Not Found', [('A', 'b')], None))
            return []
        application(self.environ(), self.start_response)
        self.assertEqual(self.started, [('404 Not Found', [('A', 'b')], None)])
        self.assertEqual(write, [self.started.append])
        self.assertEqual(self.frames(1)[0]['status'], 404)

    def test_a_generator_is_followed_to_its_end(self):
        def body(environ):
            for chunk in (b'a', b'b'):
                time.sleep(0.01)
                transactions.current().sql('select 1', 'sqlite', 'x').end(1)
                yield chunk
        result = self.application(body)(self.environ('/stream'), self.start_response)
        self.assertEqual(list(result), [b'a', b'b'])
        result.close()
        frame = self.frames(1)[0]
        self.assertGreater(frame['duration'], 19000)
        self.assertEqual(len(frame['steps']), 2)
        self.assertIsNone(transactions.current())

    def test_a_body_is_closed_exactly_as_the_server_closes_it(self):
        body = Body([b'x'])
        result = self.application(body)(self.environ(), self.start_response)
        self.assertFalse(hasattr(result, '__len__'))
        self.assertEqual(b''.join(result), b'x')
        self.assertEqual(body.closed, 0)
        result.close()
        self.assertEqual(body.closed, 1)
        self.assertEqual(result.chunks, [b'x'])
        self.assertEqual(len(self.frames(1)), 1)

    def test_a_body_with_a_length_keeps_it(self):
        result = self.application(Sized([b'x']))(self.environ(), self.start_response)
        self.assertEqual(len(result), 1)
        result.close()
        self.assertEqual(len(self.frames(1)), 1)

    def test_a_file_wrapper_is_the_servers_own_object(self):
        wrapper = FileWrapper(None)
        self.assertIs(self.application(wrapper)(self.environ(), self.start_response), wrapper)
        self.assertEqual(len(self.frames(1)), 1)

    def test_an_error_while_streaming(self):
        def body(environ):
            yield b'a'
            raise ValueError('half way')
        result = self.application(body)(self.environ(), self.start_response)
        self.assertRaises(ValueError, list, result)
        result.close()
        frame = self.frames(1)[0]
        self.assertEqual((frame['error_class'], frame['error_message']), ('ValueError', 'half way'))

    def test_a_client_that_goes_away(self):
        seen = []

        def body(environ):
            try:
                yield b'a'
                yield b'b'
            except GeneratorExit:
                seen.append('closed')
                raise
        result = self.application(body)(self.environ(), self.start_response)
        next(iter(result))
        result.close()
        self.assertEqual(seen, ['closed'])
        self.assertEqual(self.frames(1)[0]['error_class'], '')

    def test_a_body_that_nobody_closes(self):
        result = self.application(Body([b'x']))(self.environ(), self.start_response)
        del result
        self.assertEqual(len(self.frames(1)), 1)
        self.request('/next')
        self.assertEqual(len(self.frames(2)), 2)

    def test_the_next_request_ends_what_was_left_open(self):
        kept = self.application(Body([b'x']))(self.environ('/open'), self.start_response)
        self.application([b'x'])(self.environ('/next'), self.start_response)
        self.assertEqual([frame['path'] for frame in self.frames(2)], ['/open', '/next'])
        kept.close()
        self.check_account()

    def test_exceptions_pass(self):
        for kind in (ValueError, KeyboardInterrupt, SystemExit, GeneratorExit):
            def fails(environ):
                raise kind('x')
            self.assertRaises(kind, self.application(fails), self.environ(), self.start_response)
        self.assertEqual(len(self.calls), 4)
        self.assertEqual([frame['error_class'] for frame in self.frames(4)],
                         ['ValueError', 'KeyboardInterrupt', 'SystemExit', 'GeneratorExit'])
        self.assertIsNone(transactions.current())

    def test_an_application_that_returns_nothing(self):
        self.assertIsNone(self.application(None)(self.environ(), self.start_response))
        self.assertEqual(len(self.frames(1)), 1)

    def test_ignored_requests_are_answered(self):
        result = [b'x']
        self.assertIs(self.application(result)(self.environ('/app.js'), self.start_response), result)
        self.assertEqual(len(self.calls), 1)
        self.request('/next')
        self.assertEqual([frame['path'] for frame in self.frames(1)], ['/next'])

    def test_an_application_within_an_application(self):
        inner = self.application([b'x'])
        outer = whatap.register_app(lambda environ, start_response: inner(dict(environ), start_response))
        self.assertEqual(outer(self.environ(), self.start_response), [b'x'])
        self.request('/next')
        self.assertEqual(len(self.frames(2)), 2)

    def test_paths_are_utf8_and_below_their_prefix(self):
        path = '/caf\xc3\xa9'  # as a server hands it over: Latin-1 on Python 3
        self.application([])(self.environ(path, SCRIPT_NAME='/shop'), self.start_response)
        self.assertEqual(self.frames(1)[0]['path'], u'/shop/caf\xe9')

    def test_environments_with_odd_values(self):
        for value in (None, 5, b'\xff', u'\ud800', object()):
            environ = self.environ(REQUEST_METHOD=value, HTTP_HOST=value, REMOTE_ADDR=value, HTTP_USER_AGENT=value, HTTP_REFERER=value,
                                   HTTP_TRACEPARENT=value, HTTP_TRACESTATE=value)
            self.assertEqual(self.application([])(environ, self.start_response), [])
        for value in (None, '', '*', '/' * 100000):
            self.assertEqual(self.application([])(self.environ(value), self.start_response), [])
        self.assertEqual(len(self.frames(9)), 9)

    def test_statuses_of_all_sorts(self):
        for status in ('200 OK', '404', '999 x', 'x', '', '2', u'200 OK', '500 Oops'):
            self.application([], status)(self.environ(), self.start_response)
        self.assertEqual([frame['status'] for frame in self.frames(8)], [200, 404, 999, 0, 0, 0, 200, 500])

    def test_the_trace_is_taken_from_the_headers(self):
        self.application([])(self.environ(HTTP_TRACEPARENT='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'), self.start_response)
        self.assertEqual(self.frames(1)[0]['parent'], '00f067aa0ba902b7')

    def test_an_application_that_is_an_object(self):
        class Application(object):
            """Mine."""
            attribute = 5

            def __call__(self, environ, start_response):
                start_response('200 OK', [])
                return [b'x']
        application = whatap.register_app(Application())
        self.assertEqual(application(self.environ(), self.start_response), [b'x'])
        self.assertEqual(application.attribute, 5)
        self.assertEqual(len(self.frames(1)), 1)


if __name__ == '__main__':
    unittest.main()
