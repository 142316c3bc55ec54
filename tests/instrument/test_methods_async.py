"""Asynchronous functions that the options name."""
import asyncio
import inspect
import unittest

import sink

sink.start(hook_method_patterns=('sample_async:*',), hook_service_patterns=('sample_async:service',))

import sample_async  # noqa: E402


class Methods(sink.Traced):
    def run_in_transaction(self, coroutine):
        async def main():
            with self.transaction():
                return await coroutine
        return asyncio.run(main())

    def test_coroutines(self):
        async def work():
            self.assertEqual(await asyncio.gather(sample_async.wait(0.1), sample_async.wait(0.05)), [0.1, 0.05])
            with self.assertRaises(KeyError):
                await sample_async.failing()
        self.run_in_transaction(work())
        steps = self.steps('method')
        self.assertEqual([(step['a'], step['failed']) for step in steps],
                         [('sample_async:wait', False), ('sample_async:wait', False), ('sample_async:failing', True)])
        self.assertGreaterEqual(steps[0]['duration'], 90000)
        self.assertEqual(steps[2]['parent'], 0)
        self.assertTrue(inspect.iscoroutinefunction(sample_async.wait))

    def test_cancellation_passes(self):
        async def work():
            task = asyncio.ensure_future(sample_async.wait(10))
            await asyncio.sleep(0.01)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
        self.run_in_transaction(work())
        self.assertEqual([(step['a'], step['failed']) for step in self.steps('method')], [('sample_async:wait', True)])

    def test_asynchronous_generators(self):
        async def work():
            self.assertEqual([number async for number in sample_async.numbers(3)], [0, 1, 2])
            values = sample_async.numbers(2)
            self.assertEqual(await values.asend(None), 0)
            self.assertEqual(await values.asend('x'), 'x')
            self.assertEqual(await values.__anext__(), 1)
            await values.aclose()
            values = sample_async.numbers(2)
            await values.__anext__()
            with self.assertRaises(ZeroDivisionError):
                await values.athrow(ZeroDivisionError())
        self.run_in_transaction(work())
        self.assertEqual([(step['a'], step['failed']) for step in self.steps('method')],
                         [('sample_async:numbers', False)] * 2 + [('sample_async:numbers', True)])
        self.assertTrue(inspect.isasyncgenfunction(sample_async.numbers))

    def test_services(self):
        async def work():
            self.assertEqual(await sample_async.service(False), 7)
            with self.assertRaises(ValueError):
                await sample_async.service(True)
        asyncio.run(work())
        good, bad = sink.take()
        self.assertEqual((good['name'], good['error_class'], [step['a'] for step in good['steps']]), ('sample_async:service', '', ['sample_async:wait']))
        self.assertEqual(bad['error_class'], 'ValueError')


if __name__ == '__main__':
    unittest.main()
