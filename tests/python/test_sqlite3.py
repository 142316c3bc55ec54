"""sqlite3: statements are seen, and nothing else can be told."""
import os
import pickle
import tempfile
import time
import unittest

from traced import Traced
from whatap import tx as transactions
from whatap.instrument import _past

try:
    import sqlite3
except ImportError:
    sqlite3 = None


@unittest.skipIf(sqlite3 is None, 'no sqlite3 here')
class Statements(Traced):
    def setUp(self):
        super(Statements, self).setUp()
        self.attach()
        self.connection = sqlite3.connect(':memory:')
        self.connection.execute('create table item (id integer primary key, name text)')
        # Nothing is slow, however busy the machine is, unless a test says so.
        _past.FROM = 10 ** 15

    def steps(self, work):
        tx = transactions.begin('GET', '/')
        tx.returned = None
        try:
            return work()
        finally:
            tx.end(200)
            frame = [frame for frame in self.collector.wait(self.ring.words[24]) if frame['id'] == '%016x' % tx.id][0]
            self.seen = [(step['kind'], step['a'], step['value'], step['flags']) for step in frame['steps']]
            self.frame = frame

    def test_what_is_executed(self):
        def work():
            cursor = self.connection.cursor()
            self.assertIs(cursor.execute('insert into item values (?, ?)', (1, 'secret')), cursor)
            cursor.executemany('insert into item values (?, ?)', [(2, 'b'), (3, 'c')])
            rows = self.connection.execute('select id from item order by id').fetchall()
            self.assertEqual([tuple(row) for row in rows], [(1,), (2,), (3,)])
            self.connection.executescript('select 1; select 2')
            self.connection.executemany('delete from item where id = ?', [(1,), (2,)])
        self.steps(work)
        self.assertEqual([step for step in self.seen if step[1] != 'COMMIT'], [  # some versions commit before a script
            (1, 'insert into item values (?, ?)', 1, 0), (1, 'insert into item values (?, ?)', 2, 0),
            (1, 'select id from item order by id', -1, 0), (1, 'select 1; select 2', -1, 0),
            (1, 'delete from item where id = ?', 2, 0)])
        self.assertEqual((self.frame['steps'][0]['b'], self.frame['steps'][0]['c']), ('sqlite', ':memory:'))
        self.assertNotIn('secret', repr(self.frame))

    def test_commits_and_rollbacks_that_end_something(self):
        def work():
            self.connection.commit()
            self.connection.rollback()
            self.connection.execute('insert into item values (7, ?)', ('x',))
            self.connection.commit()
            with self.connection:
                self.connection.execute('delete from item where id = 7')
            try:
                with self.connection:
                    self.connection.execute('insert into item values (8, ?)', ('x',))
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        self.connection.commit()
        self.steps(work)
        said = [text for kind, text, _, flags in self.seen]
        if not hasattr(self.connection, 'in_transaction'):
            said = said[2:]  # Python 2.7 does not tell that there was nothing to commit
        self.assertEqual(said, [
            'insert into item values (7, ?)', 'COMMIT', 'delete from item where id = 7', 'COMMIT', 'insert into item values (8, ?)',
            'ROLLBACK'])
        self.assertEqual((self.frame['steps'][-1]['b'], self.frame['steps'][-1]['c'], self.frame['steps'][-1]['value']), ('sqlite', ':memory:', 0))
        self.assertEqual(self.connection.execute('select count(*) from item').fetchone()[0], 0)

    def test_a_commit_that_fails_raises_as_ever(self):
        self.connection.executescript('pragma foreign_keys = on; create table part (of references item deferrable initially deferred)')

        def work():
            self.connection.execute('insert into part values (99)')
            self.assertRaises(sqlite3.IntegrityError, self.connection.commit)
            self.connection.rollback()
            self.connection.close()
            self.assertRaises(sqlite3.ProgrammingError, self.connection.commit)
            self.assertRaises(sqlite3.ProgrammingError, self.connection.rollback)
        self.steps(work)
        self.assertEqual([(text, flags) for _, text, _, flags in self.seen[:3]],
                         [('insert into part values (99)', 0), ('COMMIT', 1), ('ROLLBACK', 0)])

    def test_fetching_is_a_step_only_if_it_takes_time(self):
        def slowly(value):
            time.sleep(0.004)
            return value
        _past.FROM = 5 * 10 ** 6
        self.connection.create_function('slowly', 1, slowly)
        self.connection.executemany('insert into item values (?, ?)', [(number, 'x') for number in range(1, 6)])
        self.connection.commit()

        def work():
            self.assertEqual(len(self.connection.execute('select slowly(id) from item').fetchall()), 5)
            cursor = self.connection.execute('select slowly(name) from item')
            self.assertEqual([len(cursor.fetchmany(4)), len(cursor.fetchmany(4))], [4, 1])
            self.assertEqual(cursor.fetchall(), [])
        self.steps(work)
        fetches = [(text, rows) for kind, text, rows, _ in self.seen if kind == 9]
        self.assertEqual(fetches[:2], [('select slowly(id) from item', 5), ('select slowly(name) from item', 4)])
        step = [step for step in self.frame['steps'] if step['kind'] == 9][0]
        self.assertEqual((step['b'], step['c']), ('sqlite', ':memory:'))
        self.assertGreater(step['duration'], 5000)

    def test_fetches_that_fail_raise_as_ever(self):
        def breaks(value):
            time.sleep(0.006)
            return 1 // (value - 2)
        _past.FROM = 5 * 10 ** 6
        self.connection.create_function('breaks', 1, breaks)
        self.connection.executemany('insert into item values (?, ?)', [(number, 'x') for number in range(1, 3)])

        def work():
            cursor = self.connection.execute('select breaks(id) from item')
            self.assertRaises(sqlite3.OperationalError, cursor.fetchall)
            self.assertRaises(TypeError, cursor.fetchall, 1, 2, 3)
        self.steps(work)
        self.assertEqual([(text, flags) for kind, text, _, flags in self.seen if kind == 9], [('select breaks(id) from item', 1)])

    def test_errors_are_raised_as_they_are(self):
        def work():
            for statement in ('select nope', 'not sql', 'insert into item values (1, 2, 3)'):
                self.assertRaises(sqlite3.OperationalError, self.connection.execute, statement)
            self.assertRaises(Exception, self.connection.execute, 'select ?', ())
            self.assertRaises(TypeError, self.connection.execute)
        self.steps(work)
        self.assertEqual([step[3] for step in self.seen], [1] * 4)
        self.assertIn('sqlite3.OperationalError: no such column', self.frame['steps'][0]['d'])

    def test_an_error_of_one_request_does_not_reach_the_next(self):
        def failing():
            try:
                self.connection.execute('select nope')
            except sqlite3.OperationalError:
                pass
        self.steps(failing)
        self.assertEqual(self.steps(lambda: self.connection.execute('select 5').fetchone()[0]), 5)

    def test_connections_are_steps(self):
        path = os.path.join(tempfile.mkdtemp(), 'shop.db')
        self.steps(lambda: sqlite3.connect(path, 5.0).close())
        self.assertEqual([(step[0], step[1]) for step in self.seen], [(5, path)])

        def failing():
            self.assertRaises(sqlite3.OperationalError, sqlite3.connect, '/nowhere/at/all.db')
        self.steps(failing)
        self.assertEqual(self.seen[0][3], 1)
        os.unlink(path)
        os.rmdir(os.path.dirname(path))

    def test_types_are_what_they_were(self):
        cursor = self.connection.cursor()
        self.assertIs(type(self.connection), sqlite3.Connection)
        self.assertIs(type(cursor), sqlite3.Cursor)
        self.assertIs(type(self.connection.execute('select 1')), sqlite3.Cursor)
        self.assertIs(cursor.connection, self.connection)
        self.assertIs(sqlite3.Connection, sqlite3.dbapi2.Connection)
        self.assertTrue(repr(self.connection).startswith('<sqlite3.Connection object at '))
        self.assertRaises(AttributeError, setattr, self.connection, 'anything', 1)
        self.assertIs(pickle.loads(pickle.dumps(sqlite3.connect)), sqlite3.connect)
        self.assertIs(pickle.loads(pickle.dumps(sqlite3.Connection)), sqlite3.Connection)

    def test_factories_of_the_programs_own(self):
        class Connection(sqlite3.Connection):
            closed = False

            def close(self):
                self.closed = True
                super(Connection, self).close()

        class Cursor(sqlite3.Cursor):
            def execute(self, statement, *args):
                return super(Cursor, self).execute(statement.replace('%s', '?'), *args)

        def work():
            connection = sqlite3.connect(':memory:', factory=Connection)
            self.assertIs(type(connection), Connection)
            cursor = connection.cursor(Cursor)
            self.assertIs(type(cursor), Cursor)
            self.assertEqual(tuple(cursor.execute('select %s', (7,)).fetchone()), (7,))
            connection.close()
            self.assertTrue(connection.closed)
            self.assertTrue(sqlite3.connect(':memory:', 5.0, 0, None, True, Connection).execute('select 1'))
            made = sqlite3.connect(':memory:', factory=lambda *args, **kwargs: Connection(*args))
            self.assertIs(type(made), Connection)
        self.steps(work)
        self.assertEqual([step[1] for step in self.seen if step[0] == 1], ['select ?', 'select 1'])

    def test_rows_adapters_and_collations_work(self):
        def work():
            self.connection.row_factory = sqlite3.Row
            row = self.connection.execute('select 1 as one').fetchone()
            self.assertEqual((row['one'], row.keys()), (1, ['one']))
            self.connection.create_function('twice', 1, lambda value: value * 2)
            self.assertEqual(self.connection.execute('select twice(4)').fetchone()[0], 8)
            with self.connection:
                self.connection.execute('insert into item values (9, ?)', (u'x',))
            self.assertEqual([tuple(row) for row in self.connection.execute('select id from item')], [(9,)])
            self.assertEqual(len(list(self.connection.iterdump())), 4)
        self.steps(work)

    def test_outside_of_transactions_nothing_is_recorded(self):
        before = self.ring.words[24]
        self.connection.execute('select 1')
        self.assertEqual(self.ring.words[24], before)
        self.steps(lambda: None)
        self.assertEqual(self.seen, [])

    def test_an_uninitialised_cursor_says_what_it_always_said(self):
        def work():
            self.assertRaises(sqlite3.ProgrammingError, sqlite3.Cursor.__new__(sqlite3.Cursor).execute, 'select 1')
        self.steps(work)

    def test_hostile_statements(self):
        class Text(str):
            def __getitem__(self, index):
                raise RuntimeError('asked')
            __len__ = encode = startswith = __getitem__

        def work():
            self.assertEqual(self.connection.execute(Text('select 3')).fetchone()[0], 3)
            self.assertEqual(self.connection.execute('select 1 -- ' + 'x' * 100000).fetchone()[0], 1)
        self.steps(work)
        self.assertEqual(len(self.seen), 2)


if __name__ == '__main__':
    unittest.main()
