"""Work that a transaction gives to other threads and processes."""
import gc
import os
import sys
import threading
import unittest
import weakref

import sink

sink.start()

try:
    from concurrent.futures import ThreadPoolExecutor
except ImportError:
    ThreadPoolExecutor = None


def mark(name):
    from whatap import tx
    t = tx.current()
    if t is not None:
        t.call(name).end()
    return name


class Threads(sink.Traced):
    def names(self):
        return sorted(step['a'] for step in self.steps('method'))

    def test_thread_works_for_its_starter(self):
        with self.transaction():
            thread = threading.Thread(target=mark, args=('in thread',))
            thread.start()
            thread.join()
            mark('in request')
        self.assertEqual(self.names(), ['in request', 'in thread'])

    def test_thread_of_a_thread(self):
        def outer():
            inner = threading.Thread(target=mark, args=('inner',))
            inner.start()
            inner.join()
        with self.transaction():
            thread = threading.Thread(target=outer)
            thread.start()
            thread.join()
        self.assertEqual(self.names(), ['inner'])

    def test_thread_outside_a_transaction(self):
        thread = threading.Thread(target=mark, args=('x',))
        thread.start()
        thread.join()
        self.assertEqual(sink.take(), [])

    def test_thread_that_outlives_its_transaction(self):
        go, done = threading.Event(), []

        def late():
            go.wait(10)
            done.append(mark('late'))

        with self.transaction():
            thread = threading.Thread(target=late)
            thread.start()
        go.set()
        thread.join()
        self.assertEqual(done, ['late'])
        self.assertEqual(self.names(), [])
        with self.transaction():
            pass
        self.assertEqual(self.names(), [])

    def test_transactions_side_by_side_keep_their_own(self):
        def request(number):
            with self.transaction('r%d' % number):
                thread = threading.Thread(target=mark, args=('s%d' % number,))
                thread.start()
                thread.join()
        threads = [threading.Thread(target=request, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted((frame['path'], frame['steps'][0]['a']) for frame in sink.take()),
                         [('/r%d' % number, 's%d' % number) for number in range(8)])

    def test_subclass_and_its_exceptions(self):
        class Mine(threading.Thread):
            def __init__(self):
                threading.Thread.__init__(self, name='mine')
                self.seen = []

            def run(self):
                self.seen.append((mark('mine'), sorted(key for key in self.__dict__ if 'whatap' in key)))

        with self.transaction():
            thread = Mine()
            thread.start()
            with self.assertRaises(RuntimeError):
                thread.start()  # twice
            thread.join()
        self.assertEqual(thread.seen, [('mine', [])])
        self.assertEqual(self.names(), ['mine'])

    def test_nothing_keeps_the_callers_objects(self):
        class Thing(object):
            def run(self):
                mark('thing')

        with self.transaction():
            thing = Thing()
            gone = weakref.ref(thing)
            thread = threading.Thread(target=thing.run)
            thread.start()
            thread.join()
            del thing, thread
            gc.collect()
            self.assertIsNone(gone())
        sink.take()


@unittest.skipIf(ThreadPoolExecutor is None, 'no concurrent.futures')
class Pools(sink.Traced):
    def test_work_belongs_to_its_submitter(self):
        with ThreadPoolExecutor(max_workers=2) as pool:
            for name in ('a', 'b'):
                with self.transaction(name):
                    self.assertEqual(list(pool.map(mark, [name + '1', name + '2'])), [name + '1', name + '2'])
                frame = self.frame()
                self.assertEqual((frame['path'], sorted(step['a'] for step in frame['steps'])), ('/' + name, [name + '1', name + '2']))
            self.assertEqual(pool.submit(mark, 'outside').result(), 'outside')
        self.assertEqual(sink.take(), [])

    def test_worker_started_in_a_request_does_not_belong_to_it(self):
        with ThreadPoolExecutor(max_workers=1) as pool:
            with self.transaction('first') as first:
                pool.submit(mark, 'first').result()
                from whatap import tx
                outside = tx.activate(None)  # as if another thread without a transaction submitted it
                pool.submit(mark, 'stranger').result()
                tx.deactivate(outside)
                self.assertIs(tx.current(), first)
        self.assertEqual([step['a'] for step in self.steps()], ['first'])

    def test_results_exceptions_and_arguments_pass(self):
        def work(*args, **kwargs):
            if not args:
                raise KeyError('nothing')
            return args, kwargs

        with ThreadPoolExecutor(max_workers=1) as pool, self.transaction():
            self.assertEqual(pool.submit(work, 1, fn=2, tx=3, kwargs=4).result(), ((1,), {'fn': 2, 'tx': 3, 'kwargs': 4}))
            with self.assertRaises(KeyError):
                pool.submit(work).result()
            with self.assertRaises(TypeError):
                pool.submit()
        sink.take()


@unittest.skipUnless(hasattr(os, 'fork'), 'no fork')
class Processes(sink.Traced):
    def child(self, work):
        """What `work` returns in a forked child, as text."""
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(theirs, repr(work()).encode('utf-8'))
            finally:
                os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, 'rb') as answer:
            text = answer.read().decode('utf-8')
        os.waitpid(pid, 0)
        return text

    def test_fork_inside_a_transaction(self):
        def work():
            mark('of the child')  # not the parent's transaction
            with self.transaction('child'):
                mark('own')
            return [(frame['path'], [step['a'] for step in frame['steps']]) for frame in sink.take()]

        with self.transaction('parent'):
            mark('before')
            self.assertEqual(self.child(work), repr([('/child', ['own'])]))
            mark('after')
        self.assertEqual([step['a'] for step in self.steps()], ['before', 'after'])

    def test_child_that_ends_the_parents_transaction(self):
        with self.transaction('parent') as t:
            def work():
                t.end(200)
                return len(sink.take())
            self.assertEqual(self.child(work), '0')
        self.assertEqual(self.frame()['path'], '/parent')


def in_a_process(queue):
    # A fresh interpreter when the start method is spawn or forkserver: then there is no tracer, and nothing breaks.
    tracing = 'whatap' in sys.modules
    if tracing:
        from whatap import tx
        sink.take()
        t = tx.begin('GET', '/child')
        mark('in child')
        t.end(200)
    queue.put([(frame['path'], [step['a'] for step in frame['steps']]) for frame in sink.take()])


class Multiprocessing(sink.Traced):
    def test_each_start_method(self):
        import multiprocessing
        contexts = [multiprocessing]
        if hasattr(multiprocessing, 'get_all_start_methods'):
            contexts = [multiprocessing.get_context(name) for name in multiprocessing.get_all_start_methods()]
        for context in contexts:
            with self.transaction('parent'):
                queue = context.Queue()
                process = context.Process(target=in_a_process, args=(queue,))
                process.start()
                self.assertEqual(queue.get(timeout=60), [('/child', ['in child'])])
                process.join()
                self.assertEqual(process.exitcode, 0)
            self.assertEqual(self.frame()['path'], '/parent')


if __name__ == '__main__':
    unittest.main()
