"""Our own faults: every answer stays as it is, each fault is counted, and a hook that keeps failing takes itself off."""
import logging
import os
import shutil
import sqlite3
import sys
import tempfile
import unittest

import peer
import sink

sink.start(hook_method_patterns=('sample_methods:plain',))

import requests  # noqa: E402

import sample_methods  # noqa: E402

try:
    from http import client as httplib
except ImportError:  # Python 2.7
    import httplib


class Broken(object):
    """Within the block a name of ours is None: calling it is a TypeError in our own code."""

    def __init__(self, module, name):
        __import__(module)
        self.module, self.name = sys.modules[module], name

    def __enter__(self):
        self.value = getattr(self.module, self.name)
        setattr(self.module, self.name, None)

    def __exit__(self, *failure):
        setattr(self.module, self.name, self.value)


class Faults(sink.Traced):
    faults_allowed = True

    @classmethod
    def setUpClass(cls):
        cls.peer = peer.Peer()
        cls.directory = tempfile.mkdtemp(prefix='wfa')

    @classmethod
    def tearDownClass(cls):
        cls.peer.close()
        shutil.rmtree(cls.directory, ignore_errors=True)

    def tearDown(self):
        from whatap import guard
        guard.failures.clear()
        del guard.first_faults[:]
        sink.take()

    def work(self):
        """What an application does, and what it sees."""
        connection = sqlite3.connect(os.path.join(self.directory, 'x.sqlite3'))
        seen = [connection.execute('SELECT 1').fetchall(), sample_methods.plain(1)]
        try:
            connection.execute('SELECT nothing')
        except sqlite3.OperationalError as error:
            seen.append(str(error))
        connection.close()
        seen.append(requests.get(self.peer.url + '/here').status_code)
        try:
            requests.get('http://127.0.0.1:1/')
        except requests.ConnectionError as error:
            seen.append(type(error).__name__)
        logging.getLogger('faults').error('%d', 7)
        return seen

    def test_each_name_of_the_core_in_turn(self):
        from whatap import guard, tx
        logging.getLogger('faults').addHandler(logging.NullHandler())
        logging.getLogger('faults').propagate = False
        expected = self.work()
        for module, name in (('whatap.tx', 'clock'), ('whatap.encode', 'any_step'), ('whatap.tx', 'get_ident'), ('whatap.encode', 'transaction'), ('whatap.errors', 'short'),
                             ('whatap.instrument.httpclient', 'describe'), ('whatap.instrument.logging', 'message'), ('whatap.instrument.threads', 'capture')):
            with Broken(module, name):
                t = tx.begin('GET', '/')
                if t is not None:
                    t.returned = None
                self.assertEqual(self.work(), expected, name)
                if t is not None:
                    t.end(200)
            guard.failures.clear()
            del guard.first_faults[:]
            tx._set(None)
        with self.transaction('after'):
            self.assertEqual(self.work(), expected)
        found = [frame for frame in sink.take() if frame['path'] == '/after']
        self.assertEqual(len(found), 1)
        self.assertGreaterEqual(len(found[0]['steps']), 5)

    def test_hook_that_keeps_failing_takes_itself_off(self):
        from whatap import guard
        original = httplib.HTTPConnection.__dict__['putrequest'].__wrapped__
        hooked = httplib.HTTPConnection.__dict__['putrequest']
        try:
            with Broken('whatap.instrument.httpclient', 'describe'):
                for _ in range(guard.MAX_FAILURES):
                    with self.transaction():
                        self.assertEqual(requests.get(self.peer.url + '/here').status_code, 200)
            self.assertIs(httplib.HTTPConnection.__dict__['putrequest'], original)
            with self.transaction():
                self.assertEqual(requests.get(self.peer.url + '/here').status_code, 200)
        finally:
            from whatap import hooks
            hooks._switched_off.clear()
            for name in ('putrequest', 'endheaders', 'getresponse'):
                if not hasattr(httplib.HTTPConnection.__dict__[name], '_whatap'):
                    from whatap.instrument import httpclient
                    hooks.wrap(httplib.HTTPConnection, name, getattr(httpclient, 'traced_' + name))
        self.assertIsNot(hooked, original)

    def test_wrapping_twice_changes_nothing(self):
        from whatap import hooks
        before = httplib.HTTPConnection.__dict__['putrequest']
        sys.modules['whatap.instrument.httpclient'].instrument(httplib)
        hooks.install()
        self.assertIs(httplib.HTTPConnection.__dict__['putrequest'], before)


class OtherTracers(sink.Traced):
    def test_wrapped_by_another_before_and_after(self):
        server = peer.Peer()
        calls = []
        ours = httplib.HTTPConnection.__dict__['getresponse']

        def theirs(self, *args, **kwargs):
            calls.append('after')
            return ours(self, *args, **kwargs)

        httplib.HTTPConnection.getresponse = theirs
        try:
            with self.transaction():
                requests.get(server.url + '/here')
        finally:
            httplib.HTTPConnection.getresponse = ours
            server.close()
        self.assertIn('after', calls)  # urllib3 1.x tries twice
        self.assertEqual([step['value'] for step in self.steps('http')], [200])

    def test_members_that_another_has_replaced_by_descriptor_objects(self):
        from whatap import hooks

        class StandIn(object):
            """As wrapt makes them: it knows its instance only if it is bound."""

            def __init__(self, wrapped):
                self.__wrapped__ = wrapped
                self.__name__ = 'stand_in'

            @property
            def __class__(self):
                return type(self.__wrapped__)

            def __get__(self, instance, owner):
                return self.__wrapped__.__get__(instance, owner)

            def __call__(self, *args):
                raise AssertionError('called without being bound')

        class Thing(object):
            def plain(self, a):
                return self.b + a

            @classmethod
            def of_class(cls, a):
                return cls.b + a

            @staticmethod
            def static(a):
                return a

            b = 1

        calls = []

        def counted(function):
            def wrapper(*args, **kwargs):
                calls.append(1)
                return function(*args, **kwargs)
            return wrapper

        for name in ('plain', 'of_class', 'static'):
            setattr(Thing, name, StandIn(Thing.__dict__[name]))
            hooks.wrap(Thing, name, counted)
        self.assertEqual((Thing().plain(2), Thing().of_class(2), Thing.of_class(2), Thing.static(2), Thing().static(2)), (3, 3, 3, 2, 2))
        self.assertEqual(len(calls), 5)

    def test_finder_of_another_in_front_and_behind(self):
        from whatap import hooks

        class Finder(object):
            asked = []

            def find_spec(self, name, path=None, target=None):
                self.asked.append(name)

            def find_module(self, name, path=None):
                self.asked.append(name)

        finder = Finder()
        for place in (0, len(sys.meta_path)):
            sys.meta_path.insert(place, finder)
            try:
                sys.modules.pop('colorsys', None)
                hooked = []
                hooks.register('colorsys', 'test%d' % place, hooked.append)
                import colorsys
                self.assertEqual(hooked, [colorsys])
            finally:
                sys.meta_path.remove(finder)
        hooks._rows.pop('colorsys')
        self.assertIn('colorsys', finder.asked)


if __name__ == '__main__':
    unittest.main()
