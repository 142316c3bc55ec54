"""Test cases with the tracer in their own process and a collector in a thread."""
import time
import unittest

import support
from fake_collector import Collector
from whatap import _launch, guard, hooks, ring as rings, tx as transactions

hooks.install()


class Traced(unittest.TestCase):
    """A fresh ring and a collector for each test. Fails if our guard had to swallow anything."""

    faults_allowed = False
    answers = True

    def setUp(self):
        self.name = support.Programs.name()
        self.collector = Collector(self.name, answers=self.answers).start()
        _launch.take('1;_name=' + self.name)
        transactions._set(None)
        transactions._ring = rings.Ring()
        del guard.first_faults[:]
        guard.failures.clear()

    def tearDown(self):
        transactions._set(None)
        self.collector.stop()
        if not self.faults_allowed:
            self.assertEqual(guard.first_faults, [])

    @property
    def ring(self):
        return transactions._ring

    def attach(self):
        """One transaction; waits until the ring is there."""
        for _ in range(200):
            transactions.begin('GET', '/attach').end(200)
            if self.ring.mapping is not None:
                return
            self.ring.link.next_try = 0
            time.sleep(0.005)
        self.fail('not attached')

    def request(self, path='/', status=200, **more):
        tx = transactions.begin('GET', path, **more)
        tx.end(status)

    def others(self, count):
        """The first frames that are not from `attach`."""
        found = []
        for _ in range(1000):
            found = [frame for frame in self.collector.frames() if frame['path'] != '/attach']
            if len(found) >= count:
                break
            self.ring.drain()
            time.sleep(0.005)
        return found

    def counters(self):
        self.collector.poll()
        return self.collector.rings[0].counters()

    def check_account(self, waiting=None):
        """ended = taken + lost + waiting."""
        found = self.counters()
        waiting = len(self.ring.queue) if waiting is None else waiting
        lost = found['queue_full'] + found['too_big'] + found['encode_error'] + found['exit']
        self.assertEqual(found['ended'], found['taken'] + lost + waiting, found)
        return found
