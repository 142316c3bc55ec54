"""A reader that polls without pause while frames are written: none torn, none lost, none twice.

`run.py` lets the newest interpreter write a million, the others fewer.
"""
import json
import os
import subprocess
import sys
import threading
import time
import unittest

import support
from whatap import _launch, hooks, ring as rings, tx as transactions

FRAMES = int(os.environ.get('WHATAP_TEST_FRAMES', '30000'))

hooks.install()


class Torn(unittest.TestCase):
    def write(self, count, path):
        for number in range(count):
            tx = transactions.begin('GET', path)
            if number % 7 == 0:
                tx.sql('select 1', 'sqlite', 'x').end(1)
            tx.end(200)
            until = time.time() + 60
            while len(transactions._ring.queue) > 100 and time.time() < until:
                time.sleep(0.002)
                transactions._ring.drain()

    def test_a_polling_reader_sees_every_frame_whole(self):
        name = support.Programs.name()
        reader = subprocess.Popen([sys.executable, os.path.join(support.HERE, 'fake_collector.py'), name, '--forget', '--busy'],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
        self.addCleanup(reader.communicate)
        self.addCleanup(reader.kill)
        reader.stdout.readline()
        _launch.take('1;_name=' + name)
        transactions._ring = rings.Ring()
        rings_wait, rings.FIRST_WAIT = rings.FIRST_WAIT, 5
        try:
            for attempt in range(100):
                if transactions._ring.mapping is None:
                    transactions.begin('GET', '/attach').end(200)
                    time.sleep(0.01)
            threads = [threading.Thread(target=self.write, args=(FRAMES // 3, path))
                       for path in ('/', '/' + 'a' * 150, '/' + 'b' * 1000)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            rings.FIRST_WAIT = rings_wait
        ring = transactions._ring
        for _ in range(5000):
            ring.drain()
            if not ring.queue and ring.words[rings.TAIL] == ring.words[rings.HEAD]:
                break
            time.sleep(0.002)
        reader.stdin.write('counters\n')
        reader.stdin.flush()
        answer = json.loads(reader.stdout.readline())
        self.assertIsInstance(answer, list, answer)
        counters = answer[0]
        self.assertEqual(counters['queue_full'], 0)
        self.assertEqual(counters['ended'], counters['taken'])
        self.assertGreaterEqual(counters['taken'], FRAMES // 3 * 3)


if __name__ == '__main__':
    unittest.main()
