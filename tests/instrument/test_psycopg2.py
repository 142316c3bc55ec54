"""psycopg2 against a real PostgreSQL: every statement once, errors untouched, the caller's classes respected."""
import io
import unittest

import postgres
import sink

sink.start()

import psycopg2  # noqa: E402
import psycopg2.extensions  # noqa: E402
import psycopg2.extras  # noqa: E402
import psycopg2.pool  # noqa: E402
import psycopg2.sql  # noqa: E402


class Statements(sink.Traced):
    @classmethod
    def setUpClass(cls):
        cls.arguments = postgres.address()
        cls.target = '%(host)s:%(port)s/%(dbname)s' % cls.arguments

    def setUp(self):
        super(Statements, self).setUp()
        self.connections = []

    def tearDown(self):
        for connection in self.connections:
            connection.close()
        super(Statements, self).tearDown()

    def connect(self, *args, **kwargs):
        connection = psycopg2.connect(*args, **dict(self.arguments, **kwargs))
        self.connections.append(connection)
        return connection

    def statements(self):
        return [(step['a'], step['value'], step['failed']) for step in self.steps('sql')]

    def test_connection_and_statements(self):
        with self.transaction():
            connection = self.connect()
            cursor = connection.cursor()
            cursor.execute('SELECT generate_series(1, %s)', (3,))
            self.assertEqual(cursor.fetchall(), [(1,), (2,), (3,)])
            cursor.execute('CREATE TEMP TABLE t (a int, b text)')
            cursor.executemany('INSERT INTO t VALUES (%s, %s)', [(1, 'secret'), (2, 'secret')])
            cursor.execute('UPDATE t SET a = a')
        frame = self.frame()
        self.assertNotIn('secret', repr(frame))
        self.assertNotIn(postgres.PASSWORD, repr(frame))
        self.assertEqual([(step['kind'], step['a'], step['b'], step['c']) for step in frame['steps']], [
            ('dbc', self.target, 'postgresql', ''),
            ('sql', 'SELECT generate_series(1, %s)', 'postgresql', self.target),
            ('sql', 'CREATE TEMP TABLE t (a int, b text)', 'postgresql', self.target),
            ('sql', 'INSERT INTO t VALUES (%s, %s)', 'postgresql', self.target),
            ('sql', 'UPDATE t SET a = a', 'postgresql', self.target)])
        self.assertEqual([step['value'] for step in frame['steps']], [0, 3, -1, 2, 2])

    def test_connection_made_before_the_transaction(self):
        connection = self.connect()
        with self.transaction():
            connection.cursor().execute('SELECT 1')
        self.assertEqual(self.statements(), [('SELECT 1', 1, False)])

    def test_error_is_raised_once_and_unchanged(self):
        with self.transaction():
            with self.assertRaises(psycopg2.ProgrammingError) as caught:
                self.connect().cursor().execute('SELECT nothing')
        self.assertIn('nothing', caught.exception.pgerror)
        step = self.steps('sql')[0]
        self.assertTrue(step['failed'])
        self.assertIn('UndefinedColumn' if hasattr(psycopg2, 'errors') else 'ProgrammingError', step['d'])

    def test_refused_connection(self):
        with self.transaction():
            with self.assertRaises(psycopg2.OperationalError):
                psycopg2.connect('host=127.0.0.1 port=1 dbname=x password=hunter2')
        frame = self.frame()
        self.assertEqual([(step['kind'], step['a'], step['failed']) for step in frame['steps']], [('dbc', '127.0.0.1:1/x', True)])
        self.assertNotIn('hunter2', repr(frame))

    def test_types_are_what_was_asked_for(self):
        connection = self.connect()
        self.assertIsInstance(connection, psycopg2.extensions.connection)
        self.assertEqual(type(connection).__name__, 'connection')
        with self.assertRaises(AttributeError):
            connection.anything = 1
        self.assertIsInstance(connection.cursor(), psycopg2.extensions.cursor)
        self.assertIsNone(connection.cursor_factory)
        psycopg2.extensions.register_type(psycopg2.extensions.UNICODE, connection)
        psycopg2.extensions.register_type(psycopg2.extensions.UNICODE, connection.cursor())
        self.assertEqual(psycopg2.extensions.quote_ident('a"b', connection), '"a""b"')
        self.assertIs(type(connection), type(self.connect()))
        self.assertIs(type(connection.cursor()), type(connection.cursor()))

    def test_classes_of_the_caller(self):
        class Mine(psycopg2.extras.DictConnection):
            pass

        for connection in (
                self.connect(cursor_factory=psycopg2.extras.DictCursor), self.connect(connection_factory=psycopg2.extras.DictConnection),
                self.connect(connection_factory=Mine)):
            with self.transaction():
                cursor = connection.cursor()
                self.assertIsInstance(cursor, psycopg2.extras.DictCursor)
                cursor.execute('SELECT 7 AS seven')
                self.assertEqual(cursor.fetchone()['seven'], 7)
            self.assertEqual(self.statements(), [('SELECT 7 AS seven', 1, False)])
        self.assertIsInstance(connection, Mine)
        with self.transaction():
            cursor = connection.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor)
            cursor.execute('SELECT 7 AS seven')
            self.assertEqual(cursor.fetchone().seven, 7)
            with self.connect().cursor(None, psycopg2.extras.RealDictCursor) as cursor:
                cursor.execute('SELECT 8 AS eight')
                self.assertEqual(cursor.fetchone()['eight'], 8)
        self.assertEqual([statement for statement in self.statements()], [('SELECT 7 AS seven', 1, False), ('SELECT 8 AS eight', 1, False)])

    def test_factory_that_is_no_class(self):
        made = []

        def factory(dsn, *rest):
            made.append(dsn)
            return psycopg2.extensions.connection(dsn, *rest)

        connection = self.connect(connection_factory=factory)
        self.assertEqual(len(made), 1)
        self.assertIs(type(connection), psycopg2.extensions.connection)

    def test_slow_fetches_of_a_named_cursor(self):
        connection = self.connect()
        with self.transaction():
            cursor = connection.cursor('slow')
            cursor.execute("SELECT pg_sleep(0.01), 'secret' || %s FROM generate_series(1, 3)", ('x',))
            with sink.slow_from(5):
                self.assertEqual(len(cursor.fetchmany(2)), 2)
                self.assertEqual(len(cursor.fetchall()), 1)
            cursor.close()
            connection.rollback()
        steps = self.steps('fetch', 'sql')
        self.assertEqual([(step['kind'], step['a'].split(',')[0], step['value']) for step in steps], [
            ('sql', 'SELECT pg_sleep(0.01)', -1), ('fetch', 'SELECT pg_sleep(0.01)', 2), ('fetch', 'SELECT pg_sleep(0.01)', 1), ('sql', 'ROLLBACK', 0)])
        self.assertNotIn("'x'", repr(steps))
        self.assertEqual(set(step['c'] for step in steps), {self.target})

    def test_named_cursor(self):
        connection = self.connect()
        with self.transaction():
            cursor = connection.cursor('rows')
            cursor.itersize = 2
            cursor.execute('SELECT generate_series(1, 5)')
            self.assertEqual([row[0] for row in cursor], [1, 2, 3, 4, 5])
            cursor.close()
        self.assertEqual(self.statements(), [('SELECT generate_series(1, 5)', -1, False)])

    def test_with_connection_commits_and_rolls_back(self):
        connection = self.connect()
        with self.transaction():
            with connection:
                with connection.cursor() as cursor:
                    cursor.execute('CREATE TEMP TABLE w (a int)')
            with self.assertRaises(ZeroDivisionError):
                with connection:
                    connection.cursor().execute('INSERT INTO w VALUES (1)')
                    1 / 0
            cursor = connection.cursor()
            cursor.execute('SELECT count(*) FROM w')
            self.assertEqual(cursor.fetchone(), (0,))
        self.assertEqual([statement[0] for statement in self.statements()], [
            'CREATE TEMP TABLE w (a int)', 'COMMIT', 'INSERT INTO w VALUES (1)', 'ROLLBACK', 'SELECT count(*) FROM w'])

    def test_many_values_and_copy(self):
        connection = self.connect()
        with self.transaction():
            cursor = connection.cursor()
            cursor.execute('CREATE TEMP TABLE c (a int, b text)')
            psycopg2.extras.execute_values(cursor, 'INSERT INTO c VALUES %s', [(1, 'x'), (2, 'y')])
            cursor.copy_from(io.StringIO(u'3\tz\n'), 'c')
            out = io.BytesIO() if str is bytes else io.StringIO()
            cursor.copy_expert('COPY c TO STDOUT', out)
            self.assertEqual(len(out.getvalue().splitlines()), 3)
        statements = self.statements()
        self.assertEqual([statement[0] for statement in statements][2:], ['COPY FROM c', 'COPY c TO STDOUT'])
        self.assertEqual(len(statements), 4)

    def test_statement_objects_without_their_values(self):
        from psycopg2 import sql
        connection = self.connect()
        query = sql.SQL('SELECT {}, {}, {} AS {}').format(sql.Literal('hunter2'), sql.Placeholder(), sql.Placeholder('x'), sql.Identifier('a"b'))
        with self.transaction():
            with self.assertRaises(Exception):
                connection.cursor().execute(query, (1,))  # mixes both kinds of placeholders
            connection.rollback()
            connection.cursor().execute(b'SELECT 1')
        self.assertEqual([statement[0] for statement in self.statements()], ['SELECT ?, %s, %(x)s AS "a""b"', 'SELECT 1'])

    def test_procedure(self):
        with self.transaction():
            cursor = self.connect().cursor()
            cursor.callproc('abs', [-3])
            self.assertEqual(cursor.fetchone(), (3,))
        self.assertEqual(self.statements(), [('CALL abs', 1, False)])

    def test_pool(self):
        pool = psycopg2.pool.SimpleConnectionPool(1, 2, **self.arguments)
        for _ in range(2):
            with self.transaction():
                connection = pool.getconn()
                connection.cursor().execute('SELECT 1')
                pool.putconn(connection)
            self.assertEqual(self.statements(), [('SELECT 1', 1, False), ('ROLLBACK', 0, False)])
        pool.closeall()

    def test_wrong_arguments_raise_as_ever(self):
        cursor = self.connect().cursor()
        with self.transaction():
            for wrong in (lambda: cursor.execute(), lambda: cursor.execute(17), lambda: cursor.execute('SELECT 1', nonsense=1)):
                with self.assertRaises(TypeError):
                    wrong()
            with self.assertRaises(psycopg2.ProgrammingError):
                psycopg2.connect('this is no dsn')

    def test_url_with_a_password(self):
        with self.transaction():
            connection = psycopg2.connect('postgresql://%(user)s:%(password)s@%(host)s:%(port)s/%(dbname)s?application_name=x' % self.arguments)
            self.connections.append(connection)
            connection.cursor().execute('SELECT 1')
        frame = self.frame()
        self.assertEqual(frame['steps'][0]['a'], self.target)
        self.assertEqual(frame['steps'][1]['c'], self.target)
        self.assertNotIn(postgres.PASSWORD, repr(frame))


class Targets(unittest.TestCase):
    def test_connection_strings(self):
        from whatap.instrument import _database as database
        for dsn, arguments, expected in (
                ('host=db.example port=5433 dbname=shop password=hunter2', {}, 'db.example:5433/shop'),
                ("host = 'db.example'  dbname='it''s'", {}, 'db.example:5432/it'),
                (r"dbname='it\'s' host=h", {}, "h:5432/it's"),
                ('postgresql://u:p%40w@h1:1,h2:2/shop?sslmode=require', {}, 'h1:1/shop'),
                ('postgres://h/shop', {}, 'h:5432/shop'),
                ('postgresql://u:hunter2@[::1]:99/x', {}, '[::1]:99/x'),
                ('postgresql:///x?host=/run/pg&port=7', {}, 'localhost:7/x'),
                ('', {'host': '/tmp', 'database': 'd', 'password': 'hunter2'}, 'localhost:5432/d'),
                (None, {'host': 'h', 'port': 1, 'user': 'bob'}, 'h:1/bob'),
                ('nonsense', {}, 'localhost:5432/'), ('=', {}, 'localhost:5432/'), ('host', {}, 'localhost:5432/'), (7, {}, 'localhost:5432/'),
                ('postgresql://%zz%@%:x/%%', {}, '%:x/%%'), ("host='", {}, 'localhost:5432/'), ('host=\\', {}, '\\:5432/'),
                ('x' * 10000, {}, 'localhost:5432/')):
            self.assertEqual(database.target_of_arguments(dsn, arguments), expected, dsn)

    def test_total_on_any_text(self):
        import random
        from whatap.instrument import _database as database
        rng = random.Random(3)
        for _ in range(3000):
            text = ''.join(rng.choice("postgresql:// host=port'\\%@[]?&,;x1") for _ in range(rng.randint(0, 40)))
            database.target_of_arguments(rng.choice(['', 'postgresql://']) + text, {})


if __name__ == '__main__':
    unittest.main()
