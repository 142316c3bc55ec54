"""psycopg 3 against a real PostgreSQL."""
import unittest

import postgres
import sink

sink.start()

try:
    import psycopg
    from psycopg import sql
except ImportError:
    raise unittest.SkipTest('psycopg 3 is not installed for this Python')


class Statements(sink.Traced):
    @classmethod
    def setUpClass(cls):
        cls.arguments = postgres.address()
        cls.target = '%(host)s:%(port)s/%(dbname)s' % cls.arguments

    def statements(self):
        return [(step['a'], step['value'], step['failed']) for step in self.steps('sql')]

    def test_connection_and_statements(self):
        with self.transaction():
            with psycopg.connect(**self.arguments) as connection:
                self.assertEqual(connection.execute('SELECT generate_series(1, %s)', (3,)).fetchall(), [(1,), (2,), (3,)])
                with connection.cursor() as cursor:
                    cursor.execute(b'CREATE TEMP TABLE t (a int, b text)')
                    cursor.executemany('INSERT INTO t VALUES (%s, %s)', [(1, 'secret'), (2, 'secret')])
        frame = self.frame()
        self.assertNotIn('secret', repr(frame))
        self.assertNotIn(postgres.PASSWORD, repr(frame))
        self.assertEqual([(step['kind'], step['a'], step['b'], step['c'], step['value']) for step in frame['steps']], [
            ('dbc', self.target, 'postgresql', '', 0),
            ('sql', 'SELECT generate_series(1, %s)', 'postgresql', self.target, 3),
            ('sql', 'CREATE TEMP TABLE t (a int, b text)', 'postgresql', self.target, -1),
            ('sql', 'INSERT INTO t VALUES (%s, %s)', 'postgresql', self.target, 2),
            ('sql', 'COMMIT', 'postgresql', self.target, 0)])

    def test_error(self):
        with psycopg.connect(**self.arguments) as connection, self.transaction():
            with self.assertRaises(psycopg.errors.UndefinedColumn):
                connection.execute('SELECT nothing')
        step = self.steps('sql')[0]
        self.assertTrue(step['failed'])
        self.assertIn('UndefinedColumn', step['d'])

    def test_refused(self):
        with self.transaction():
            with self.assertRaises(psycopg.OperationalError):
                psycopg.connect('postgresql://bob:hunter2@127.0.0.1:1/x')
        frame = self.frame()
        self.assertEqual([(step['kind'], step['a'], step['failed']) for step in frame['steps']], [('dbc', '127.0.0.1:1/x', True)])
        self.assertNotIn('hunter2', repr(frame))

    def test_slow_fetches_of_a_servers_cursor(self):
        with self.transaction():
            with psycopg.connect(**self.arguments) as connection:
                cursor = connection.cursor('slow')
                cursor.execute('SELECT pg_sleep(0.01), %s FROM generate_series(1, 4)', ('secret',))
                with sink.slow_from(5):
                    self.assertEqual(cursor.fetchone()[1], 'secret')
                    self.assertEqual(len(cursor.fetchmany(2)), 2)
                    self.assertEqual(len(cursor.fetchall()), 1)
                cursor.close()
        steps = self.steps('fetch')
        known = 'SELECT pg_sleep(0.01)' if int(psycopg.__version__.split('.')[1]) else ''  # 3.0 does not keep it
        self.assertEqual([(step['a'].split(',')[0], step['value']) for step in steps], [(known, -1), (known, 2), (known, 1)])
        self.assertNotIn('secret', repr(steps))
        self.assertEqual(set(step['c'] for step in steps), {self.target})

    def test_commits_and_rollbacks_that_end_something(self):
        with self.transaction():
            with psycopg.connect(**self.arguments) as connection:
                connection.commit()
                connection.execute('CREATE TEMP TABLE c (a int)')
                connection.commit()
                connection.execute('SELECT 1')
                connection.rollback()
                connection.rollback()
        self.assertEqual(self.statements(), [('CREATE TEMP TABLE c (a int)', -1, False), ('COMMIT', 0, False), ('SELECT 1', 1, False), ('ROLLBACK', 0, False)])

    def test_kinds_of_cursors(self):
        class Mine(getattr(psycopg, 'ClientCursor', psycopg.Cursor)):  # since 3.1
            pass

        with psycopg.connect(**self.arguments) as connection, self.transaction():
            connection.cursor_factory = Mine
            self.assertIs(type(connection.cursor()), Mine)
            connection.cursor().execute('SELECT 1')
            with connection.cursor('rows') as cursor:
                cursor.execute('SELECT generate_series(1, 5)')
                self.assertEqual(len(cursor.fetchall()), 5)
            list(connection.cursor().stream('SELECT generate_series(1, 2)'))
        self.assertEqual([statement[0] for statement in self.statements()],
                         ['SELECT 1', 'SELECT generate_series(1, 5)', 'SELECT generate_series(1, 2)'])

    def test_copy(self):
        with psycopg.connect(**self.arguments) as connection, self.transaction():
            connection.execute('CREATE TEMP TABLE c (a int)')
            with connection.cursor() as cursor:
                with cursor.copy('COPY c FROM STDIN') as copy:
                    copy.write_row((1,))
                with self.assertRaises((ZeroDivisionError, psycopg.errors.QueryCanceled)):  # 3.1, 3.0
                    with cursor.copy('COPY c FROM STDIN') as copy:
                        1 / 0
            connection.rollback()
        self.assertEqual([(name, failed) for name, _, failed in self.statements()],
                         [('CREATE TEMP TABLE c (a int)', False), ('COPY c FROM STDIN', False), ('COPY c FROM STDIN', True), ('ROLLBACK', False)])

    def test_statement_objects_without_their_values(self):
        query = sql.SQL('SELECT {} AS {}').format(sql.Literal('hunter2'), sql.Identifier('a', 'b'))
        with psycopg.connect(**self.arguments) as connection, self.transaction():
            with self.assertRaises(psycopg.Error):
                connection.execute(query)
        frame = self.frame()
        self.assertEqual(frame['steps'][0]['a'], 'SELECT ? AS "a"."b"')
        self.assertNotIn('hunter2', frame['steps'][0]['a'])

    def test_pool(self):
        try:
            from psycopg_pool import ConnectionPool
        except ImportError:
            self.skipTest('psycopg_pool is not installed')
        with ConnectionPool(kwargs=self.arguments, min_size=1, open=True) as pool:
            pool.wait()
            for _ in range(2):
                with self.transaction():
                    with pool.connection() as connection:
                        connection.execute('SELECT 1')
                self.assertEqual(self.statements(), [('SELECT 1', 1, False), ('COMMIT', 0, False)])

    def test_connect_is_the_class_method(self):
        self.assertEqual(psycopg.connect, psycopg.Connection.connect)

        class Mine(psycopg.Connection):
            pass

        with Mine.connect(**self.arguments) as connection:
            self.assertIs(type(connection), Mine)


if __name__ == '__main__':
    unittest.main()
