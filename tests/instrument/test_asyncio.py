"""A transaction goes with its tasks and with what they give to executors."""
import asyncio
import concurrent.futures
import sys
import unittest

import sink

sink.start()


def mark(name):
    from whatap import tx
    t = tx.current()
    if t is not None:
        t.call(name).end()
    return name


class Contexts(sink.Traced):
    def names(self):
        return sorted(step['a'] for step in self.steps('method'))

    def test_tasks_side_by_side_keep_their_own(self):
        async def child(name):
            await asyncio.sleep(0.01)
            mark(name)

        async def request(number):
            with self.transaction('r%d' % number):
                await asyncio.gather(child('a%d' % number), asyncio.ensure_future(child('b%d' % number)))

        async def main():
            await asyncio.gather(*[request(number) for number in range(10)])

        asyncio.run(main())
        found = sorted((frame['path'], sorted(step['a'] for step in frame['steps'])) for frame in sink.take())
        self.assertEqual(found, [('/r%d' % number, ['a%d' % number, 'b%d' % number]) for number in range(10)])

    def test_executors(self):
        async def main():
            loop = asyncio.get_running_loop()
            with self.transaction():
                self.assertEqual(await loop.run_in_executor(None, mark, 'default'), 'default')
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    self.assertEqual(await loop.run_in_executor(pool, mark, 'own'), 'own')
                if sys.version_info >= (3, 9):
                    self.assertEqual(await asyncio.to_thread(mark, 'thread'), 'thread')
                loop.call_soon(mark, 'soon')
                await asyncio.sleep(0)
            self.assertEqual(await loop.run_in_executor(None, mark, 'outside'), 'outside')

        asyncio.run(main())
        self.assertEqual(self.names(), ['default', 'own', 'soon'] + (['thread'] if sys.version_info >= (3, 9) else []))

    def test_task_that_outlives_its_transaction(self):
        async def late():
            await asyncio.sleep(0.05)
            return mark('late')

        async def main():
            with self.transaction():
                task = asyncio.ensure_future(late())
            with self.transaction('other'):
                self.assertEqual(await task, 'late')

        asyncio.run(main())
        self.assertEqual([(frame['path'], frame['steps']) for frame in sink.take()], [('/test', []), ('/other', [])])


if __name__ == '__main__':
    unittest.main()
