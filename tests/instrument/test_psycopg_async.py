"""psycopg 3 with asyncio."""
import asyncio
import unittest

import postgres
import sink

sink.start()

try:
    import psycopg
except ImportError:
    raise unittest.SkipTest('psycopg 3 is not installed for this Python')


class Statements(sink.Traced):
    @classmethod
    def setUpClass(cls):
        cls.arguments = postgres.address()

    def run_in_transaction(self, function):
        async def main():
            with self.transaction():
                await function()
        asyncio.run(main())

    def test_statements_and_errors(self):
        async def work():
            async with await psycopg.AsyncConnection.connect(**self.arguments) as connection:
                cursor = await connection.execute('SELECT generate_series(1, 3)')
                self.assertEqual(len(await cursor.fetchall()), 3)
                await connection.cursor().executemany('SELECT %s', [(1,), (2,)])
                with self.assertRaises(psycopg.errors.UndefinedColumn):
                    await connection.execute('SELECT nothing')
                await connection.rollback()
                self.assertEqual([row async for row in connection.cursor().stream('SELECT 5')], [(5,)])
                async with connection.cursor().copy('COPY (SELECT 1) TO STDOUT') as copy:
                    self.assertEqual([bytes(part) async for part in copy], [b'1\n'])
        self.run_in_transaction(work)
        self.assertEqual([(step['kind'], step['a'], step['failed']) for step in self.steps()][1:], [
            ('sql', 'SELECT generate_series(1, 3)', False), ('sql', 'SELECT %s', False), ('sql', 'SELECT nothing', True), ('sql', 'ROLLBACK', False),
            ('sql', 'SELECT 5', False), ('sql', 'COPY (SELECT 1) TO STDOUT', False), ('sql', 'COMMIT', False)])

    def test_statements_side_by_side(self):
        async def one(seconds):
            async with await psycopg.AsyncConnection.connect(**self.arguments) as connection:
                await connection.execute('SELECT pg_sleep(%s)' % seconds)
                await connection.execute('SELECT 1')

        async def work():
            await asyncio.gather(one(0.1), one(0.2), one(0.15))
            async with await psycopg.AsyncConnection.connect(**self.arguments) as connection:
                await connection.execute('SELECT 2')
        self.run_in_transaction(work)
        frame = self.frame()
        steps = [step for step in frame['steps'] if step['kind'] == 'sql' and step['a'] != 'COMMIT']
        self.assertEqual(sorted(step['a'] for step in steps),
                         ['SELECT 1'] * 3 + ['SELECT 2', 'SELECT pg_sleep(0.1)', 'SELECT pg_sleep(0.15)', 'SELECT pg_sleep(0.2)'])
        for step in steps:
            seconds = float(step['a'][16:-1]) if 'sleep' in step['a'] else 0
            self.assertLess(abs(step['duration'] / 1e6 - seconds), 0.2, step)
        self.assertEqual([step['parent'] for step in frame['steps']], [0] * len(frame['steps']))

    def test_slow_fetches_of_a_servers_cursor(self):
        async def work():
            async with await psycopg.AsyncConnection.connect(**self.arguments) as connection:
                cursor = connection.cursor('slow')
                await cursor.execute('SELECT pg_sleep(0.01), %s FROM generate_series(1, 3)', ('secret',))
                with sink.slow_from(5):
                    self.assertEqual((await cursor.fetchone())[1], 'secret')
                    self.assertEqual(len(await cursor.fetchall()), 2)
                await cursor.close()
        self.run_in_transaction(work)
        steps = self.steps('fetch')
        self.assertEqual([step['value'] for step in steps], [-1, 2])
        self.assertNotIn('secret', repr(steps))

    def test_cancelled(self):
        async def work():
            async with await psycopg.AsyncConnection.connect(**self.arguments) as connection:
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(connection.execute('SELECT pg_sleep(5)'), 0.1)
        self.run_in_transaction(work)
        step = self.steps('sql')[0]
        self.assertTrue(step['failed'])
        self.assertLess(step['duration'], 3000000)


if __name__ == '__main__':
    unittest.main()
