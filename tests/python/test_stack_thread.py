"""The option active_stack_thread: stacks of transactions that are stuck inside one call."""
import sys
import threading
import time
import unittest

import support
from traced import Traced
from whatap import _launch, _stack_thread, tx as transactions
from whatap.instrument import wsgi

_stack_thread.PERIOD = 0.02


def watching():
    """How many of those threads there are."""
    found = 0
    for frame in sys._current_frames().values():
        while frame is not None and frame.f_code is not _stack_thread._watch.__code__:
            frame = frame.f_back
        found += frame is not None
    return found


class Stuck(Traced):
    def setUp(self):
        super(Stuck, self).setUp()
        self.release = threading.Event()
        self.entered = threading.Event()

    def tearDown(self):
        _launch.options['active_stack_thread'] = False
        self.release.set()
        super(Stuck, self).tearDown()

    def choose(self, on):
        _launch.options['active_stack_thread'] = on
        self.attach()

    def stuck_call(self):
        self.entered.set()
        self.release.wait(20)

    def serve(self):
        """A request that hangs, in a thread of its own."""
        def application(environ, start_response):
            self.stuck_call()
            start_response('200 OK', [])
            return [b'done']
        served = wsgi.middleware(application)
        environ = {'REQUEST_METHOD': 'GET', 'PATH_INFO': '/stuck'}
        thread = threading.Thread(target=lambda: served(environ, lambda *args: None))
        thread.start()
        self.assertTrue(self.entered.wait(20))
        return thread

    def want(self, number):
        ring = self.collector.rings[0]
        slot = [one for one in ring.running() if one['name'] == 'GET /stuck'][0]['slot']
        ring.memory[512 + slot:513 + slot] = number

    def wait_for(self, condition):
        until = time.time() + 20
        while not condition() and time.time() < until:
            time.sleep(0.01)
        self.assertTrue(condition())

    def stacks(self):
        return [step['a'] for frame in self.others(1) for step in frame['steps'] if step['kind'] == 8]

    def test_each_number_gives_one_stack_of_the_call_that_hangs(self):
        self.choose(True)
        thread = self.serve()
        tx = [found for found in _transactions() if found.path == '/stuck'][0]
        for number, count in ((b'\1', 1), (b'\2', 2)):
            self.want(number)
            self.wait_for(lambda: len(tx.steps) == count)
            time.sleep(0.1)
            self.assertEqual(len(tx.steps), count)
        tx = None
        self.release.set()
        thread.join()
        found = self.stacks()
        self.assertEqual(len(found), 2)
        for stack in found:
            self.assertIn('\0stuck_call\0', stack)
            self.assertNotIn('_watch', stack)

    def test_nobody_is_asked_nothing_is_taken(self):
        self.choose(True)
        thread = self.serve()
        time.sleep(0.2)
        self.release.set()
        thread.join()
        self.assertEqual(self.stacks(), [])

    def test_there_is_no_thread_unless_the_option_says_so(self):
        self.wait_for(lambda: watching() == 0)
        self.choose(False)
        self.assertEqual(watching(), 0)
        thread = self.serve()
        self.want(b'\1')
        time.sleep(0.2)
        self.release.set()
        thread.join()
        self.assertEqual(self.stacks(), [])

    def test_it_ends_with_its_ring(self):
        self.wait_for(lambda: watching() == 0)
        self.choose(True)
        self.wait_for(lambda: watching() == 1)
        transactions._ring = type(transactions._ring)()
        self.wait_for(lambda: watching() == 0)


def _transactions():
    import gc
    return [one for one in gc.get_objects() if type(one) is transactions.Transaction and one.state == transactions.LIVE]


PROGRAM = """
import os, sys, time, whatap
from whatap import tx as transactions

@whatap.method_profiling
def job():
    return len(os.listdir("/proc/self/task"))

deadline = time.time() + 20
alone = len(os.listdir("/proc/self/task"))
while job() == 1 and time.time() < deadline:
    time.sleep(0.01)
counts = [alone, job()]
pid = os.fork()
if pid == 0:
    inherited = len(os.listdir("/proc/self/task"))
    deadline = time.time() + 20
    while job() == 1 and time.time() < deadline:
        time.sleep(0.01)
    sys.stdout.write('%d %d\\n' % (inherited, job()))
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
sys.stdout.write('%d %d\\n' % tuple(counts))
"""


class Processes(Traced):
    def test_a_forked_child_gets_a_thread_of_its_own_with_its_first_transaction(self):
        launch = '1;_name=%s;!active_stack_thread=true' % self.name
        status, out, err = support.run([sys.executable, '-W', 'ignore', '-c', PROGRAM], support.environment(launch))
        self.assertEqual((status, err), (0, b''))
        self.assertEqual(out.split(), [b'1', b'2', b'1', b'2'])


if __name__ == '__main__':
    unittest.main()
