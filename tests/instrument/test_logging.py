"""Log records of a transaction."""
from __future__ import absolute_import

import logging
import unittest

import sink

sink.start()

log = logging.getLogger('shop.orders')


class Loud(object):
    """Counts how often its text is asked for."""

    def __init__(self):
        self.asked = 0

    def __str__(self):
        self.asked += 1
        return 'loud'


class Records(sink.Traced):
    def setUp(self):
        super(Records, self).setUp()
        self.root = logging.getLogger()
        self.handlers, self.root.handlers = self.root.handlers, [logging.NullHandler()]
        log.setLevel(logging.DEBUG)

    def tearDown(self):
        self.root.handlers = self.handlers
        super(Records, self).tearDown()

    def logs(self):
        return [(step['value'], step['c'], step['b'], step['a']) for step in self.steps('log')]

    def test_from_warning_on(self):
        with self.transaction():
            log.debug('d')
            log.info('i')
            log.warning('order %d is %s', 7, 'late')
            log.error('e')
            log.critical('c')
        log.error('outside')
        self.assertEqual(self.logs(), [(13, 'WARNING', 'shop.orders', 'order 7 is late'), (17, 'ERROR', 'shop.orders', 'e'), (21, 'CRITICAL', 'shop.orders', 'c')])

    def test_level_of_the_option(self):
        from whatap import _launch
        _launch.options['trace_logging_level'] = 'INFO'
        try:
            with self.transaction():
                log.debug('d')
                log.info('i')
        finally:
            _launch.options['trace_logging_level'] = 'WARNING'
        self.assertEqual(self.logs(), [(9, 'INFO', 'shop.orders', 'i')])

    def test_disabled_and_filtered_records_are_not_seen(self):
        log.setLevel(logging.CRITICAL)
        with self.transaction():
            log.error('e')
        self.assertEqual(self.logs(), [])

    def test_text_of_the_applications_objects_is_asked_for_as_often_as_ever(self):
        loud = Loud()
        with self.transaction():
            log.error('a %s b %d', loud, 3)
        self.assertEqual(loud.asked, 0)
        self.assertEqual(self.logs(), [(17, 'ERROR', 'shop.orders', 'a <Loud> b 3')])

        class Keep(logging.Handler):
            def emit(self, record):
                self.format(record)

        self.root.handlers = [Keep()]
        with self.transaction():
            log.error('a %s', loud)
        self.assertEqual(loud.asked, 1)
        self.assertEqual(self.logs(), [(17, 'ERROR', 'shop.orders', 'a loud')])

    def test_odd_records(self):
        class Text(str):
            def __mod__(self, other):
                raise RuntimeError('hostile')

        with self.transaction():
            log.error(Loud())
            log.error('%d', Loud())
            log.error('%(a)s and %(b)s', {'a': 1, 'b': Loud()})
            log.error('100%', 1)
            log.error(ValueError('bad %s'))
            log.error(u'\udcff \u20ac' if str is not bytes else u'\u20ac')
            log.error('x' * 100000)
            log.error(Text('t'))
        logs = [text for _, _, _, text in self.logs()]
        self.assertEqual(logs[:5], ['<Loud>', '%d', '1 and <Loud>', '100%', 'ValueError: bad %s'])
        self.assertLessEqual(len(logs[6]), 10000)
        self.assertEqual(logs[7], '<Text>')

    def test_exception(self):
        with self.transaction():
            try:
                {}['key']
            except KeyError:
                log.exception('failed')
        text = self.logs()[0][3]
        self.assertTrue(text.startswith('failed\n'), text)
        self.assertIn('KeyError', text)

    def test_record_is_not_changed(self):
        seen = []

        class Keep(logging.Handler):
            def emit(self, record):
                seen.append((record, dict(record.__dict__)))

        self.root.handlers = [Keep()]
        with self.transaction():
            log.error('a %s', 1)
        record, before = seen[0]
        self.assertEqual(record.__dict__, before)

    def test_handler_that_raises(self):
        class Bad(logging.Handler):
            def handle(self, record):
                raise ZeroDivisionError

        self.root.handlers = [Bad()]
        with self.transaction():
            with self.assertRaises(ZeroDivisionError):
                log.error('a')
        self.assertEqual(self.logs(), [])

    def test_a_flood_is_bounded(self):
        with self.transaction():
            for _ in range(5000):
                log.error('a')
        frame = self.frame()
        self.assertLessEqual(len(frame['steps']), 1000)
        self.assertEqual(len(frame['steps']) + frame['cut'], 5000)

    def test_caller_is_found_as_ever(self):
        class Keep(logging.Handler):
            found = None

            def emit(self, record):
                Keep.found = (record.filename, record.funcName)

        self.root.handlers = [Keep()]
        with self.transaction():
            log.error('a')
        self.assertEqual(Keep.found[1], 'test_caller_is_found_as_ever')


if __name__ == '__main__':
    unittest.main()
