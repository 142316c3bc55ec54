# -*- coding: utf-8 -*-
"""Transactions: what is recorded, odd values, errors, trace context, the public decorators."""
import sys
import time
import unittest

from traced import Traced
import whatap
from whatap import errors, policy, trace, tx as transactions

PY2 = sys.version_info[0] == 2
text = type(u'')


class Hostile(object):
    """Raises whatever is asked of it."""

    def _no(self, *args, **kwargs):
        raise RuntimeError('the tracer called a method of the application')

    __str__ = __repr__ = __len__ = __eq__ = __ne__ = __hash__ = __bool__ = __nonzero__ = __getitem__ = __iter__ = _no
    __bytes__ = __unicode__ = __format__ = __lt__ = __int__ = __index__ = encode = decode = startswith = _no


class HostileText(text):
    """A text of a class of its own."""

    def _no(self, *args, **kwargs):
        raise RuntimeError('the tracer called a method of the application')

    __str__ = __repr__ = __len__ = __eq__ = __ne__ = __hash__ = __getitem__ = __iter__ = encode = startswith = _no


class HostileError(Exception):
    """An exception that cannot be shown."""

    def __str__(self):
        raise RuntimeError('the tracer called a method of the application')
    __repr__ = __str__


class Recorded(Traced):
    def ended(self, tx, status=200):
        tx.end(status)
        return [frame for frame in self.collector.wait(self.ring.words[24]) if frame['id'] == '%016x' % tx.id][0]

    def setUp(self):
        super(Recorded, self).setUp()
        self.attach()

    def test_all_fields(self):
        tx = transactions.begin('POST', '/orders/7', 'shop.example', '10.1.2.3', 'curl/8', 'http://shop.example/')
        tx.set_name('/orders/<int:pk>')
        tx.set_user('kim')
        tx.set('view', 'shop.views.order')
        frame = self.ended(tx, 201)
        self.assertEqual(
            [frame[key] for key in ('method', 'path', 'name', 'host', 'client', 'agent', 'referer', 'user', 'status', 'type')],
            ['POST', '/orders/7', '/orders/<int:pk>', 'shop.example', '10.1.2.3', 'curl/8', 'http://shop.example/', 'kim', 201, 0])
        self.assertEqual(frame['attributes'], [['view', 'shop.views.order']])
        self.assertEqual((frame['flags'], frame['parent'], frame['cut']), (0, '0' * 16, 0))
        self.assertEqual(frame['trace'][16:], ''.join(reversed([frame['id'][at:at + 2] for at in range(0, 16, 2)])))

    def test_steps_and_what_they_are_part_of(self):
        tx = transactions.begin('GET', '/')
        outer = tx.call('shop:total')
        tx.sql('select 1', 'sqlite', 'x').end(3)
        outer.end()
        call = tx.http('GET', 'http://peer/stock', 'peer:80')
        header = call.traceparent()
        call.end(404)
        tx.log(13, 'WARNING', 'shop', 'low stock')
        tx.message('cart', '3 items')
        tx.dbc('db:5432/shop', 'postgresql').end(0, OSError(111, 'refused'))
        frame = self.ended(tx)
        self.assertEqual([(step['kind'], step['parent'], step['value'], step['flags'], step['a']) for step in frame['steps']], [
            (3, 0, 0, 0, 'shop:total'), (1, 1, 3, 0, 'select 1'), (2, 0, 404, 0, 'http://peer/stock'), (7, 0, 13, 0, 'low stock'),
            (4, 0, 0, 0, 'cart'), (5, 0, 0, 1, 'db:5432/shop')])
        self.assertIn('refused', frame['steps'][5]['d'])
        self.assertEqual(header, '00-%s-%s-01' % (frame['trace'], frame['steps'][2]['span']))

    def test_a_transaction_within_another_is_no_transaction(self):
        tx = transactions.begin('GET', '/outer')
        self.outer = tx
        tx.returned = None
        self.assertIsNone(transactions.begin('GET', '/inner'))
        self.ended(tx)
        self.assertIsNone(transactions.current())

    def test_end_is_idempotent_and_steps_after_it_are_counted(self):
        tx = transactions.begin('GET', '/')
        self.ended(tx)
        tx.end(500)
        tx.sql('late', 'sqlite', 'x').end()
        tx.log(9, 'INFO', 'x', 'late')
        self.assertEqual(self.counters()['cut'], 2)
        self.check_account()

    def test_beyond_the_limit_equal_steps_add_up(self):
        tx = transactions.begin('GET', '/')
        for number in range(1100):
            tx.sql('select %d' % (number % 3), 'sqlite', 'x').end(1)
        late = tx.http('GET', 'http://peer/a', 'peer')
        self.assertEqual(late.traceparent()[36:52], '%016x' % tx.id)
        late.end(503, IOError('no'))
        slow = tx.sql('select slow()', 'sqlite', 'x')
        time.sleep(0.05)
        slow.end(2)
        unfinished = tx.call('late')
        tx.log(9, 'INFO', 'x', 'a record beyond the limit')
        frame = self.ended(tx)
        unfinished.end()
        steps = frame['steps']
        self.assertLess(len(steps), 1100)
        self.assertEqual(sum(step['repeat'] for step in steps if step['kind'] == transactions.SQL), 1101)
        self.assertEqual(sum(step['value'] for step in steps if step['kind'] == transactions.SQL), 1102)
        found = [step for step in steps if step['a'] == u'select slow()'][0]
        self.assertEqual(found['repeat'], 1)
        self.assertGreaterEqual(found['duration'], 50000)
        self.assertGreater(found['start'] + 1000, max(step['start'] for step in steps[:600]))
        call = [step for step in steps if step['kind'] == transactions.HTTP][0]
        self.assertEqual((call['value'], call['flags'] & 1), (503, 1))
        self.assertEqual([step['a'] for step in steps if step['kind'] == transactions.LOG], [u'a record beyond the limit'])
        self.assertGreaterEqual(frame['cut'], 103)
        self.assertEqual(self.counters()['cut'], frame['cut'])

    def test_many_different_steps_add_up_by_kind(self):
        policy.max_steps = 10
        self.addCleanup(setattr, policy, 'max_steps', 1000)
        tx = transactions.begin('GET', '/')
        for number in range(3000):
            tx.sql('select %d' % number, 'sqlite', 'x').end(1)
            tx.http('http://peer/%d' % number, 'GET', 'peer').end(200)
        frame = self.ended(tx)
        for kind in (transactions.SQL, transactions.HTTP):
            steps = [step for step in frame['steps'] if step['kind'] == kind]
            self.assertEqual(sum(step['repeat'] for step in steps), 3000)
            self.assertTrue(any(step['a'] == u'(other)' and step['repeat'] > 1000 for step in steps))
        self.assertLess(len(frame['steps']), 400)

    def test_a_full_frame_keeps_every_sum(self):
        tx = transactions.begin('GET', '/')
        for number in range(900):
            tx.sql('select %d %s' % (number, 'x' * (20 * number)), 'sqlite', 'x').end(1)
        tx.log(9, 'INFO', 'x', 'last')
        frame = self.ended(tx)
        self.assertEqual(sum(step['repeat'] for step in frame['steps'] if step['kind'] == transactions.SQL), 900)
        self.assertIn(u'last', [step['a'] for step in frame['steps']])
        self.assertGreater(frame['cut'], 100)

    def test_odd_values_anywhere(self):
        odd = [None, u'', u'\ud800 lone', u'caf\xe9 \U0001f600', b'\xff\xfe bytes', u'nul \0 inside', u'x' * 100000, u'\ud55c' * 30000,
               b'\xed\x95\x9c' * 30000, 5, 1.5, True, 10 ** 5000, (1, 2), {'a': 1}, Hostile(), HostileText(u'text'), bytearray(b'ab'), memoryview(b'cd')]
        for value in odd:
            tx = transactions.begin('GET', '/odd')
            tx.set_name(value)
            tx.set_user(value)
            tx.set('key', value)
            tx.sql(value, value, value).end(value)
            tx.http(value, value, value).end(value)
            tx.dbc(value, value).end(0, HostileError(value))
            tx.call(value).end()
            tx.message(value, value)
            tx.log(9, value, value, value)
            frame = self.ended(tx)
            for step in frame['steps']:
                for key in 'abcd':
                    self.assertLessEqual(len(step[key].encode('utf-8')), 30000)
            tx = transactions.begin(value, value, value, value, value, value, value, value)
            if tx is not None:
                self.ended(tx, value if isinstance(value, int) else 200)
        self.check_account()

    def test_numbers_out_of_range(self):
        for number in (-1, 2 ** 31, 2 ** 40, -2 ** 31 - 1, 10 ** 30):
            tx = transactions.begin('GET', '/')
            tx.sql('x', 'sqlite', 'x').end(number)
            tx.log(number, 'x', 'x', 'x')
            frame = self.ended(tx, number)
            self.assertEqual(frame['status'], 0)

    def test_an_error_with_its_stack(self):
        def fails(reason):
            raise ValueError(reason)  # the failing line
        tx = transactions.begin('GET', '/')
        try:
            fails('no price')
        except ValueError:
            tx.fail(*sys.exc_info())
        frame = self.ended(tx, 500)
        self.assertEqual((frame['error_class'], frame['error_message'], frame['flags']), ('ValueError', 'no price', 1))
        lines = [line.split('\0') for line in frame['error_stack'].splitlines()]
        self.assertEqual(lines[-1][2:], ['fails', 'raise ValueError(reason)  # the failing line'])
        self.assertTrue(lines[-1][0].endswith('test_tx.py'))
        self.assertEqual(lines[0][3], "fails('no price')")

    def test_a_cause_comes_before_its_consequence(self):
        if PY2:
            return
        scope = {}
        exec('def chained():\n    try:\n        {}["sku"]\n    except KeyError as e:\n        raise ValueError("no price") from e\n', scope)
        tx = transactions.begin('GET', '/')
        try:
            scope['chained']()
        except ValueError:
            tx.fail(*sys.exc_info())
        stack = self.ended(tx, 500)['error_stack']
        self.assertIn("cause\0KeyError\0sku\n", stack)
        self.assertLess(stack.index('cause\0'), stack.index('test_a_cause_comes'))

    def test_each_frame_has_its_own_line_although_lines_are_remembered(self):
        names = {}
        for number in range(2500):  # more than are remembered: code objects come and go, perhaps to the same address
            exec(compile('\n' * (number % 50) + 'def fail(first):\n    if first: raise KeyError\n    raise ValueError\n', 'made_%d.py' % number, 'exec'), names)
            for first in (True, False) * (2 if number % 500 == 0 else 1):
                try:
                    names['fail'](first)
                except (KeyError, ValueError):
                    kind, error, trace = sys.exc_info()
                line = 'made_%d.py\0%d\0fail\0' % (number, number % 50 + 3 - first)
                self.assertIn(line.encode('ascii'), errors.describe(kind, error, trace))
                del error, trace

    def test_endless_causes_and_deep_stacks_end(self):
        def deep(left):
            if left:
                deep(left - 1)
            raise ValueError('deep')
        tx = transactions.begin('GET', '/')
        try:
            deep(400)
        except ValueError:
            error = sys.exc_info()[1]
            if not PY2:
                error.__cause__ = error
            tx.fail(*sys.exc_info())
        self.assertLessEqual(len(self.ended(tx, 500)['error_stack'].splitlines()), 100)

    def test_exceptions_that_cannot_be_shown(self):
        for error in (HostileError('x'), HostileError(Hostile()), KeyError(HostileText(u'k')), ValueError(), ValueError(1, u'two'),
                      UnicodeDecodeError('utf-8', b'x', 0, 1, 'bad'), SyntaxError('x', (HostileText(u'f'), 1, 1, 't'))):
            tx = transactions.begin('GET', '/')
            try:
                raise error
            except Exception:
                tx.fail(*sys.exc_info())
            self.assertTrue(self.ended(tx, 500)['error_class'])

    def test_an_answered_exception_is_the_error_of_a_5xx_and_a_step_of_the_others(self):
        for status, flags, steps in ((500, 1, []), (200, 0, [6]), (404, 0, [6])):
            tx = transactions.begin('GET', '/')
            try:
                raise ValueError('answered')
            except ValueError:
                tx.handle(*sys.exc_info())
            frame = self.ended(tx, status)
            self.assertEqual((frame['flags'], [step['kind'] for step in frame['steps']]), (flags, steps))

    def test_an_exception_that_could_not_be_answered_is_told_once(self):
        tx = transactions.begin('GET', '/')
        try:
            raise ValueError('tried')
        except ValueError:
            tx.handle(*sys.exc_info())
            tx.fail(*sys.exc_info())
        frame = self.ended(tx, 500)
        self.assertEqual((frame['error_message'], frame['steps']), ('tried', []))

    def test_no_reference_to_the_exception_is_kept(self):
        import gc
        import weakref

        class Local(object):
            pass

        def fails(local):
            raise ValueError(1)
        tx = transactions.begin('GET', '/')
        local = Local()
        reference = weakref.ref(local)
        try:
            fails(local)
        except ValueError:
            tx.fail(*sys.exc_info())
            step = tx.sql('x', 'y', 'z')
            step.end(0, sys.exc_info()[1])
        if PY2:
            sys.exc_clear()
        gc.disable()
        del local
        self.assertIsNone(reference())
        gc.enable()
        tx.end(500)

    def test_the_callers_trace_is_followed(self):
        tx = transactions.begin('GET', '/', traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', tracestate='a=b')
        header = tx.traceparent()
        frame = self.ended(tx)
        self.assertEqual((frame['trace'], frame['parent'], frame['tracestate'], frame['flags']),
                         ('4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7', 'a=b', 6))
        self.assertEqual(header, '00-4bf92f3577b34da6a3ce929d0e0e4736-%016x-01' % tx.id)

    def test_any_other_traceparent_is_ignored_and_counted(self):
        good = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
        bad = ['', 'x', 'ff' + good[2:], good + '-x', good.replace('4bf92f3577b34da6a3ce929d0e0e4736', '0' * 32), good[:-3], good.upper(),
               good.replace('00f067aa0ba902b7', '0' * 16), good.replace('-', '_'), '00-' + 'g' * 32 + good[35:], u'\u0660' * 55, 'a' * 100000,
               b'\xff' * 55, 7, None, HostileText(u'x' * 55), good[:35] + ' ' + good[36:], '-' * 55]
        before = trace.bad
        for value in bad:
            tx = transactions.begin('GET', '/', traceparent=value, tracestate=value)
            frame = self.ended(tx)
            self.assertEqual((frame['parent'], frame['tracestate']), ('0' * 16, ''), value)
        self.assertEqual(trace.bad, before + len(bad) - 1)
        tx = transactions.begin('GET', '/', traceparent='cc' + good[2:] + '-what-the-future-will-be')
        self.assertEqual(self.ended(tx)['parent'], '00f067aa0ba902b7')

    def test_long_tracestate_is_cut(self):
        tx = transactions.begin('GET', '/', traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00', tracestate='a=' + 'b' * 5000)
        self.assertEqual(len(self.ended(tx)['tracestate']), 512)

    def test_the_context_is_carried_by_hand(self):
        import threading
        tx = transactions.begin('GET', '/')
        seen = []

        def work():
            transactions._set(None)
            seen.append(transactions.current())
            transactions.run_with(captured, lambda: seen.append(transactions.current()))
            seen.append(transactions.current())
        captured = transactions.capture()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertEqual(seen, [None, tx, None])
        self.ended(tx)

    def test_a_proxys_word_is_taken_only_from_trusted_ones(self):
        client_of = policy._behind(frozenset(['10.0.0.1', '10.0.0.2']), 'X-Forwarded-For')
        headers = {'HTTP_X_FORWARDED_FOR': '6.6.6.6, 1.2.3.4, 10.0.0.2'}
        self.assertEqual(client_of('10.0.0.1', headers.get), '1.2.3.4')
        self.assertEqual(client_of('9.9.9.9', headers.get), '9.9.9.9')
        self.assertEqual(client_of('10.0.0.1', {}.get), '10.0.0.1')


class Decorators(Traced):
    def setUp(self):
        super(Decorators, self).setUp()
        self.attach()
        self.calls = []

    def names(self, count):
        return [(frame['name'].split('.')[-1], frame['type'], frame['error_class']) for frame in self.others(count)]

    def test_functions_are_called_once_and_stay_what_they_are(self):
        @whatap.method_profiling
        def work(a, b=2):
            """Adds."""
            self.calls.append((a, b))
            return a + b if a else a
        self.assertEqual((work(1), work(1, b=5), work(0)), (3, 6, 0))
        self.assertEqual(self.calls, [(1, 2), (1, 5), (0, 2)])
        self.assertEqual((work.__name__, work.__doc__), ('work', 'Adds.'))
        self.assertEqual([name[1:] for name in self.names(3)], [(2, '')] * 3)

    def test_a_function_that_raises(self):
        @whatap.method_profiling
        def work():
            self.calls.append(1)
            raise KeyError('x')
        self.assertRaises(KeyError, work)
        self.assertEqual(self.calls, [1])
        self.assertEqual(self.names(1)[0][2], 'KeyError')

    def test_batch_jobs_run_once(self):
        for result in (0, None, [], 'done'):
            @whatap.batch_profiling
            def job():
                self.calls.append(1)
                return result
            self.assertIs(job(), result)

        @whatap.batch_profiling
        def failing():
            self.calls.append(1)
            raise ValueError('no')
        self.assertRaises(ValueError, failing)
        self.assertEqual(len(self.calls), 5)
        self.assertEqual([name[1] for name in self.names(5)], [1] * 5)

    def test_generators(self):
        if PY2:
            return

        @whatap.method_profiling
        def numbers(n):
            for number in range(n):
                got = yield number
                if got:
                    self.calls.append(got)
        self.assertEqual(list(numbers(3)), [0, 1, 2])
        running = numbers(3)
        next(running)
        self.assertIsNone(transactions.current())
        running.send('hello')
        self.assertEqual(self.calls, ['hello'])
        running.close()
        failing = numbers(3)
        next(failing)
        self.assertRaises(KeyError, failing.throw, KeyError('x'))
        self.assertEqual([name[2] for name in self.names(3)], ['', '', 'KeyError'])

    def test_without_a_launch_decorators_do_nothing(self):
        from whatap import _launch
        launch, _launch.launch = _launch.launch, None
        installed, _launch.installed = _launch.installed, False
        transactions._ring = transactions.rings.Ring()
        try:
            self.assertEqual(whatap.method_profiling(lambda: 5)(), 5)
            self.assertEqual(len(self.ring.queue), 0)
        finally:
            _launch.launch, _launch.installed = launch, installed


if __name__ == '__main__':
    unittest.main()
