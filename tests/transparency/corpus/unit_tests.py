# command: sh -c '{python} -m unittest -v main 2>&1 | sed "s/in [0-9.]*s/in Ns/"'
import logging
import sqlite3
import threading
import unittest


class Tests(unittest.TestCase):
    def test_good(self):
        self.assertEqual(sqlite3.connect(':memory:').execute('select 1').fetchall(), [(1,)])

    def test_raises(self):
        with self.assertRaises(sqlite3.OperationalError):
            sqlite3.connect(':memory:').execute('bad')

    @unittest.skip('not now')
    def test_skipped(self):
        pass

    def test_bad(self):
        self.assertEqual(1, 2)

    @unittest.skipIf(not hasattr(unittest.TestCase, 'assertLogs'), 'not on this Python')
    def test_logs(self):
        with self.assertLogs('x') as seen:
            logging.getLogger('x').warning('one %s', 'two')
        self.assertEqual(seen.output, ['WARNING:x:one two'])
