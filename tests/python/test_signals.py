"""Signal handlers that raise at any instruction of ours: nothing is swallowed, nothing is lost or doubled."""
import os
import signal
import time
import unittest

from traced import Traced
from whatap import guard, tx as transactions
from whatap.instrument import wsgi

SECONDS = float(os.environ.get('WHATAP_TEST_SECONDS', '1.5'))


class Timeout(Exception):
    """What a task's time limit raises."""


class Storm(Traced):
    def storm(self, kind, interval):
        """Requests for some seconds, while a handler raises `kind` again and again. (raised, caught, requests)."""
        raised = [0]
        armed = [False]

        def handler(number, frame):
            if armed[0]:
                armed[0] = False
                raised[0] += 1
                raise kind('time is up')

        def application(environ, start_response):
            start_response('200 OK', [])
            for _ in range(3):
                tx = transactions.current()
                if tx is not None:
                    tx.sql('select 1', 'sqlite', 'x').end(1)
            return [b'x']
        application = wsgi.middleware(application)
        caught = requests = 0
        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, interval, interval)
        end = time.time() + SECONDS
        try:
            while time.time() < end:
                try:
                    armed[0] = True
                    application({'REQUEST_METHOD': 'GET', 'PATH_INFO': '/%d' % requests}, lambda *a: None)
                    armed[0] = False
                except kind:
                    armed[0] = False
                    caught += 1
                requests += 1
                if requests % 200 == 0:
                    self.collector.poll()
        finally:
            armed[0] = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return raised[0], caught, requests

    def check(self, kind):
        self.attach()
        raised, caught, requests = self.storm(kind, 0.0002)
        self.assertGreater(raised, 50)
        self.assertEqual(raised, caught)
        transactions._set(None)
        for number in range(20):
            self.request('/after/%d' % number)
        for _ in range(1000):
            self.ring.drain()
            if not self.ring.queue:
                break
            time.sleep(0.002)
        found = self.collector.wait(0)
        paths = [frame['path'] for frame in found]
        for number in range(20):
            self.assertIn('/after/%d' % number, paths)
        account = self.check_account()
        self.assertEqual(account['failures'], 0)
        self.assertEqual(len(set(frame['id'] for frame in found)), len(found), 'a frame was sent twice')
        # Where the exception came between begin and end, the transaction may be missing: never more than were raised.
        self.assertLessEqual(abs(requests + 21 - account['ended']), raised + 60)
        self.assertLess(len(self.collector.rings[0].running()), 40)
        return account

    def test_an_exception_of_the_programs_own(self):
        self.check(Timeout)

    def test_a_builtin_exception(self):
        self.check(getattr(__builtins__, 'TimeoutError', OSError))

    def test_keyboard_interrupt(self):
        self.check(KeyboardInterrupt)


class Guard(unittest.TestCase):
    def test_a_fault_of_ours_is_swallowed_and_counted(self):
        before = len(guard.first_faults)
        failing = guard.guarded(transactions._still_open)
        self.assertIsNone(failing(None, 5))
        self.assertEqual(len(guard.first_faults), before + 1)
        self.assertIn('_still_open', guard.first_faults[-1])

    def test_the_programs_exceptions_pass(self):
        def program():
            raise ValueError('mine')
        self.assertRaises(ValueError, guard.guarded(program))


if __name__ == '__main__':
    unittest.main()
