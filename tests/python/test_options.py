"""Options that arrive through the ring while the program runs, and what each of them does."""
import decimal
import os
import shutil
import sys
import tempfile
import unittest

import support
from traced import Traced
from whatap import errors, tx as transactions

PY2 = sys.version_info[0] == 2


class OutOfStock(ValueError):
    """What the program raises when all is well."""


class Chosen(Traced):
    def setUp(self):
        super(Chosen, self).setUp()
        self.attach()

    def tearDown(self):
        self.choose()
        super(Chosen, self).tearDown()

    def choose(self, **options):
        """The options of the ring; those that are not named are at their default, as the collector writes them."""
        texts = {'ignore_exceptions': '', 'trace_error_callstack_depth': '50', 'trace_active_callstack_depth': '50',
                 'trace_user_enabled': 'true', 'transaction_status_error_enable': 'false', 'trusted_proxies': ''}
        texts.update(options)
        self.collector.rings[0].set_options(texts)
        self.request('/attach')

    def ended(self, tx, status=200):
        tx.end(status)
        return [frame for frame in self.collector.wait(self.ring.words[24]) if frame['id'] == '%016x' % tx.id][0]

    def failed(self, error, status=500, handled=False):
        """The frame of a transaction in which this was raised."""
        tx = transactions.begin('GET', '/orders')
        try:
            raise error
        except Exception:
            (tx.handle if handled else tx.fail)(*sys.exc_info())
        return self.ended(tx, status)


class IgnoredExceptions(Chosen):
    def test_they_are_no_failure_whatever_the_answer(self):
        self.choose(ignore_exceptions='OutOfStock,decimal.Inexact')
        for handled in (False, True):
            frame = self.failed(OutOfStock('none left'), handled=handled)
            self.assertEqual((frame['flags'] & 1, frame['error_class'], frame['steps']), (0, '', []))

    def test_classes_below_them_and_names_with_modules(self):
        self.choose(ignore_exceptions='ValueError')
        self.assertEqual(self.failed(OutOfStock())['flags'] & 1, 0)
        self.choose(ignore_exceptions='decimal.InvalidOperation')
        self.assertEqual(self.failed(decimal.InvalidOperation())['flags'] & 1, 0)
        self.choose(ignore_exceptions='shop.InvalidOperation')
        self.assertEqual(self.failed(decimal.InvalidOperation())['flags'] & 1, 1)

    def test_another_exception_of_the_same_request_is_one(self):
        self.choose(ignore_exceptions='OutOfStock')
        tx = transactions.begin('GET', '/orders')
        for error in (OutOfStock(), KeyError('sku')):
            try:
                raise error
            except Exception:
                tx.fail(*sys.exc_info())
        frame = self.ended(tx, 500)
        self.assertEqual((frame['flags'] & 1, frame['error_class']), (1, 'KeyError'))

    def test_the_default_is_back_when_the_key_is_gone(self):
        self.choose(ignore_exceptions='OutOfStock')
        self.choose()
        self.assertEqual(self.failed(OutOfStock())['flags'] & 1, 1)

    def test_classes_that_cannot_be_asked(self):
        self.choose(ignore_exceptions='X')

        class Odd(type):
            __mro__ = property(lambda self: 1 // 0)
        kind = Odd('Strange', (Exception,), {})
        self.assertEqual(self.failed(kind('x'))['flags'] & 1, 1)


class Stacks(Chosen):
    def test_an_errors_stack_keeps_its_two_ends(self):
        def deep(left):
            if left:
                deep(left - 1)
            raise ValueError('deep')
        for depth in (50, 10, 1, 0):
            self.choose(trace_error_callstack_depth=depth)
            tx = transactions.begin('GET', '/')
            try:
                deep(100)
            except ValueError:
                tx.fail(*sys.exc_info())
            lines = self.ended(tx, 500)['error_stack'].splitlines()
            self.assertEqual(len(lines), depth)
            names = [line.split('\0')[2] for line in lines]
            if depth > 1:
                self.assertEqual((names[0], names[-1]), ('test_an_errors_stack_keeps_its_two_ends', 'deep'))

    def test_a_running_stack_keeps_its_innermost_frames(self):
        def deep(left):
            return deep(left - 1) if left else errors.stack_of(sys._getframe())
        self.choose(trace_active_callstack_depth=7)
        lines = deep(40).decode('utf-8').splitlines()
        self.assertEqual([line.split('\0')[2] for line in lines], ['deep'] * 7)


PROGRAM = """
import sqlite3, time, whatap
from whatap import tx as transactions
for _ in range(400):
    transactions.begin('GET', '/').end(200)
    if transactions._ring.mapping is not None:
        break
    time.sleep(0.01)
"""


class Debug(Traced):
    def lines(self, more):
        home = tempfile.mkdtemp()
        try:
            os.mkdir(home + '/logs')
            launch = '1;_name=%s;_home=%s%s' % (self.name, home, more)
            status, out, err = support.run([sys.executable, '-c', PROGRAM], support.environment(launch))
            self.assertEqual((status, out, err), (0, b'', b''))
            if not os.path.exists(home + '/logs/whatap-hook.log'):
                return []
            with open(home + '/logs/whatap-hook.log') as source:
                return [line.split(': ', 1)[1].rstrip() for line in source]
        finally:
            shutil.rmtree(home)

    def test_it_says_what_is_instrumented_and_attached_and_which_options_count(self):
        lines = self.lines(';debug=true;trace_error_callstack_depth=7')
        self.assertIn('options: debug=true trace_error_callstack_depth=7', lines)
        self.assertIn('instrumented sqlite3.dbapi2 by whatap.instrument.sqlite3', lines)
        self.assertEqual([line for line in lines if line.startswith('attached')], ['attached to ring %016x' % self.collector.rings[0].id])

    def test_without_it_there_is_nothing_to_say(self):
        self.assertEqual(self.lines(''), [])


class Users(Chosen):
    def test_addresses_are_kept_until_the_option_says_no(self):
        environ = {'REQUEST_METHOD': 'GET', 'PATH_INFO': '/', 'REMOTE_ADDR': '10.0.0.9', 'HTTP_X_FORWARDED_FOR': '1.2.3.4'}
        from whatap.instrument import wsgi
        for enabled, client in (('true', '10.0.0.9'), ('false', ''), ('true', '10.0.0.9')):
            self.choose(trace_user_enabled=enabled)
            tx = wsgi.begin_request(dict(environ))
            self.assertEqual(self.ended(tx)['client'], client)


if __name__ == '__main__':
    unittest.main()
