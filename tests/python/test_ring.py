"""The ring: attaching, forking, full rings, descriptors, and what stays true when anything goes wrong."""
import os
import socket
import subprocess
import sys
import threading
import time
import unittest

import support
from fake_collector import Collector
from traced import Traced
from whatap import _launch, ring as rings, tx as transactions


class Attaching(Traced):
    def test_the_first_transaction_arrives(self):
        self.request('/first')
        found = self.collector.wait(1)
        self.assertEqual([frame['path'] for frame in found], ['/first'])
        self.assertEqual(found[0]['sequence'], 1)
        self.check_account()

    def test_what_ended_before_the_answer_arrives_too(self):
        self.collector.answers = False
        for number in range(50):
            self.request('/%d' % number)
        self.assertEqual(len(self.ring.queue), 0, 'they do not wait in a process that may be idle from now on')
        self.collector.answers = True
        self.ring.link.drop()
        self.attach()
        found = self.collector.wait(51)
        self.assertEqual([frame['path'] for frame in found[:50]], ['/%d' % number for number in range(50)])
        self.assertEqual([frame['sequence'] for frame in self.collector.late][:50], list(range(1, 51)))
        self.assertEqual(self.check_account()['ended'], len(found) - len(self.collector.late))
        self.assertEqual(self.collector.rings[-1].frames[0]['sequence'], 1, 'the ring does not know of those before it')

    def test_what_a_process_leaves_behind_is_handed_over_without_a_ring(self):
        self.collector.answers = False
        for number in range(3):
            self.request('/%d' % number, user_agent='x' * 20000)
        self.ring.leave()
        found = self.collector.wait(3)
        self.assertEqual([(frame['path'], frame['sequence']) for frame in found], [('/0', 1), ('/1', 2), ('/2', 3)])
        self.assertEqual(len(self.ring.queue), 0)

    def test_the_request_says_who_asks(self):
        _launch.take('1;_name=%s;_token=0123456789abcdef0123456789abcdef;!app_name=caf%%C3%%A9;?profile_step_max_count=7' % self.name)
        self.request()
        self.collector.wait(1)
        said = self.collector.requests[0]
        self.assertEqual(said['pid'], str(os.getpid()))
        self.assertEqual(said['token'], '0123456789abcdef0123456789abcdef')
        self.assertTrue(said['runtime'].startswith(('CPython ', 'PyPy ')))
        self.assertTrue(said['launch'].startswith('1%3B_name='), said['launch'])
        options = _launch.options
        self.assertEqual((options['app_name'], options['profile_step_max_count']), (u'caf\xe9'.encode('utf-8') if str is bytes else u'caf\xe9', 7))
        _launch.change({'profile_step_max_count': '1000', 'app_name': ''})

    def test_nobody_there_costs_nothing_but_the_bounded_queue(self):
        _launch.take('1;_name=whatap-nobody-is-there')
        begun = time.time()
        for _ in range(5000):
            self.request('/' + 'x' * 200)
        self.assertLess(time.time() - begun, 5)
        kept = sum(len(item[0][0]) for item in self.ring.queue)
        self.assertLessEqual(kept, rings.MAX_QUEUE_BYTES + 65536)
        self.assertEqual(self.ring.words[rings.ENDED], 5000)
        self.assertEqual(self.ring.words[rings.LOST_QUEUE_FULL], 5000 - len(self.ring.queue))

    def test_a_stopped_collector_with_a_full_backlog_blocks_nobody(self):
        import socket
        stopped = socket.socket(socket.AF_UNIX, 5)
        name = support.Programs.name()
        stopped.bind('\0' + name)
        stopped.listen(0)
        others = []
        for _ in range(5):
            other = socket.socket(socket.AF_UNIX, 5)
            other.setblocking(False)
            try:
                other.connect('\0' + name)
            except socket.error:
                pass
            others.append(other)
        _launch.take('1;_name=' + name)
        begun = time.time()
        for _ in range(20):
            if self.ring.link is not None:
                self.ring.link.next_try = 0
            self.request()
        self.assertLess(time.time() - begun, 0.5)
        for other in others + [stopped]:
            other.close()

    def test_a_silent_collector_is_waited_for_once_and_briefly(self):
        self.collector.answers = False
        begun = time.time()
        self.request()
        first = time.time() - begun
        begun = time.time()
        for _ in range(100):
            self.request()
        self.assertLess(first, 0.5)
        self.assertLess(time.time() - begun, 0.2)

    def test_options_from_the_ring_take_effect(self):
        self.attach()
        self.collector.rings[0].set_options({'trace_ignore_url_prefix': '/health', 'trace_ignore_url_set': '/a*z,/b'})
        self.request('/')
        self.assertIsNone(transactions.begin('GET', '/health/live'))
        self.assertIsNone(transactions.begin('GET', '/a/b/z'))
        self.assertIsNone(transactions.begin('GET', '/b'))
        self.assertIsNone(transactions.begin('GET', '/static/app.js'))
        self.request('/a')
        self.collector.rings[0].set_options({'trace_ignore_url_prefix': '', 'trace_ignore_url_set': ''})
        self.request('/health')
        self.check_account()

    def test_tracing_is_switched_off_and_on_by_a_flag(self):
        self.attach()
        ring = self.collector.rings[0]
        ring.set_options({}, on=False)
        self.assertIsNone(transactions.begin('GET', '/'))
        ring.set_options({}, on=True)
        self.request('/')
        self.check_account()

    def test_a_version_that_is_being_written_is_left_alone(self):
        self.attach()
        ring = self.collector.rings[0]
        ring.memory[4096:4130] = b'\xff' * 34
        ring.store(96, ring.word(96) + 1)
        self.request('/')
        ring.set_options({})
        self.request('/')
        self.assertEqual(self.check_account()['ended'] >= 3, True)


    def test_a_refusal_and_a_fault_leave_a_line_each(self):
        import shutil
        import tempfile
        from whatap import _log, guard
        home = tempfile.mkdtemp()
        os.mkdir(home + '/logs')
        _launch.take('1;_name=%s;_home=%s' % (self.name, home))
        self.request()
        self.ring.link.refusal = 'memory'
        guard.first_faults.append('ValueError in nothing')
        for _ in range(3):
            self.ring.renew(rings.clock())
        with open(home + '/logs/whatap-hook.log') as source:
            lines = source.read().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertIn('memory', lines[1])
        del guard.first_faults[:]
        os.unlink(home + '/logs/whatap-hook.log')
        os.symlink('/etc/passwd', home + '/logs/whatap-hook.log')
        _log.note('another')
        shutil.rmtree(home)


class Refused(Traced):
    answers = False
    made = 0

    def ask(self):
        """Begins and ends until the collector has got one more request than before; gives the connection."""
        asked = len(self.collector.requests)
        for _ in range(400):
            if self.ring.link is not None:
                self.ring.link.next_try = 0
            self.traced()
            if len(self.collector.requests) > asked:
                return self.collector.connections[-1]
            time.sleep(0.005)
        self.fail('not asked')

    def traced(self):
        tx = transactions.begin('GET', '/')
        self.assertIsNotNone(tx)
        tx.end(200)
        self.made += 1

    def test_no_transaction_is_lost_to_a_refusal_or_a_broken_connection(self):
        self.ask().send(b'no\nreason=memory\n')
        for _ in range(20):
            self.traced()
            time.sleep(0.002)
        self.ask().shutdown(socket.SHUT_RDWR)
        for _ in range(20):
            self.traced()
            time.sleep(0.002)
        self.assertEqual(self.ring.words[24], self.made)


class FullRings(Traced):
    def test_a_full_ring_drops_the_newest_and_counts(self):
        self.attach()
        self.collector.wait(1)
        with self.collector.lock:
            for _ in range(6000):
                self.request('/' + 'y' * 100)
        self.assertGreater(self.ring.words[rings.LOST_QUEUE_FULL], 0)
        before = self.ring.words[rings.ENDED]
        self.collector.wait(400)
        for _ in range(100):
            time.sleep(0.003)
            self.request()
            if not self.ring.queue:
                break
        found = self.check_account()
        self.assertGreater(found['ended'], before)
        paths = set(frame['path'] for frame in self.collector.frames())
        self.assertIn('/', paths)

    def test_a_ring_more_than_half_full_rings_the_bell(self):
        self.attach()
        with self.collector.lock:
            for _ in range(900):
                self.request('/' + 'y' * 100)
            time.sleep(0.03)
            self.request('/')
        deadline = time.time() + 3
        while not self.collector.bells and time.time() < deadline:
            time.sleep(0.005)
        self.assertGreater(self.collector.bells, 0)

    def test_frames_wrap_around_the_end(self):
        self.attach()
        for number in range(3000):
            self.request('/%d/%s' % (number, 'z' * (number % 300)))
            if number % 100 == 0:
                self.collector.wait(1)
                while self.ring.queue:
                    time.sleep(0.002)
                    self.ring.drain()
        self.collector.wait(3001)
        self.assertEqual(self.check_account()['taken'], self.ring.words[rings.ENDED])

    def test_a_frame_is_at_most_a_quarter_of_the_ring(self):
        self.attach()
        tx = transactions.begin('GET', '/' + 'p' * 40000, user_agent='u' * 60000)
        for number in range(900):
            tx.sql('select %d -- %s' % (number, 's' * 3000), 'sqlite', 'x').end(1)
        tx.end(200)
        self.request('/after')
        found = self.collector.wait(3)
        self.assertEqual(found[2]['path'], '/after')
        self.assertGreater(found[1]['cut'], 800)
        self.assertTrue(found[1]['flags'] & 8)
        self.check_account()


class Forking(Traced):
    def setUp(self):
        super(Forking, self).setUp()
        # A busy machine: what is tested is that the child waits, not for how long.
        self.wait, rings.FIRST_WAIT = rings.FIRST_WAIT, 5

    def tearDown(self):
        rings.FIRST_WAIT = self.wait
        super(Forking, self).tearDown()

    def fork(self, work):
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        return child

    def test_a_child_has_a_ring_of_its_own_and_its_first_transaction_arrives(self):
        self.attach()
        before = len(self.collector.wait(1))
        for round_ in range(20):
            child = self.fork(lambda: self.request('/child'))
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            self.request('/parent')
        found = self.collector.wait(before + 40)
        self.assertEqual(len([frame for frame in found if frame['path'] == '/child']), 20)
        self.assertEqual(len([frame for frame in found if frame['path'] == '/parent']), 20)
        self.assertEqual(len(self.collector.rings), 21)

    def test_what_the_parent_began_is_the_parents(self):
        self.attach()
        tx = transactions.begin('GET', '/forks')

        def work():
            assert transactions.current() is None
            tx.sql('select 1', 'sqlite', 'x').end()
            tx.end(500)
            self.request('/child')
        self.assertEqual(os.waitpid(self.fork(work), 0)[1], 0)
        tx.end(200)
        found = self.collector.wait(3)
        self.assertEqual(sorted((frame['path'], frame['status']) for frame in found),
                         [('/attach', 200), ('/child', 200), ('/forks', 200)])

    def test_what_waits_in_the_parent_is_not_sent_twice(self):
        self.collector.answers = False
        self.request('/waiting')
        self.collector.answers = True

        def work():
            self.request('/child')
        self.assertEqual(os.waitpid(self.fork(work), 0)[1], 0)
        self.ring.link.drop()
        self.attach()
        time.sleep(0.05)
        paths = [frame['path'] for frame in self.collector.frames()]
        self.assertEqual(paths.count('/waiting'), 1)
        self.assertEqual(paths.count('/child'), 1)

    def test_ids_differ_between_parent_and_children(self):
        self.attach()
        children = [self.fork(lambda: [self.request('/c') for _ in range(50)]) for _ in range(4)]
        for child in children:
            os.waitpid(child, 0)
        for _ in range(50):
            self.request('/p')
        found = self.collector.wait(251)
        self.assertEqual(len(set(frame['id'] for frame in found)), len(found))

    def test_multiprocessing(self):
        import multiprocessing
        self.attach()
        make = getattr(multiprocessing, 'get_context', lambda kind: multiprocessing)
        processes = [make('fork').Process(target=self.request, args=('/worker',)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        found = self.collector.wait(4)
        self.assertEqual([frame['path'] for frame in found].count('/worker'), 3)


class Descriptors(unittest.TestCase):
    def test_closing_all_descriptors_and_collecting_garbage_closes_nothing_foreign(self):
        name = support.Programs.name()
        collector = Collector(name).start()
        code = r'''
import gc, os, sys
sys.path.insert(0, %r)
from whatap import _launch, tx, hooks, ring
import whatap.attach
hooks.install()
_launch.take('1;_name=%s')
for _ in range(50):
    tx.begin('GET', '/before').end(200)
assert tx._ring.mapping is not None
out = os.dup(1)
out = [os.dup(1) for _ in range(60)][-1]
os.closerange(3, out)
files = [open('/dev/null') for _ in range(40)]
numbers = [f.fileno() for f in files]
tx._ring = ring.Ring()
gc.collect()
for _ in range(50):
    tx.begin('GET', '/after').end(200)
tx._ring.link.drop() if tx._ring.link else None
gc.collect()
for number in numbers:
    os.fstat(number)
    assert os.readlink('/proc/self/fd/%%d' %% number) == '/dev/null', number
if os.fork() == 0:
    tx.begin('GET', '/child').end(200)
    gc.collect()
    for number in numbers:
        assert os.readlink('/proc/self/fd/%%d' %% number) == '/dev/null', number
    os._exit(0)
assert os.wait()[1] == 0
os.write(out, b'fine')
os._exit(0)
''' % (support.PACKAGE_PARENT, name)
        status, out, err = support.run([sys.executable, '-B', '-c', code], support.environment())
        collector.stop()
        self.assertEqual((status, out), (0, b'fine'), err)

    def test_standard_descriptors_stay_closed_and_ours_are_not_inherited(self):
        name = support.Programs.name()
        collector = Collector(name).start()
        code = r'''
import os, sys
sys.path.insert(0, %r)
os.close(0); os.close(2)
from whatap import _launch, tx, hooks
hooks.install()
_launch.take('1;_name=%s')
for _ in range(50):
    tx.begin('GET', '/').end(200)
assert tx._ring.mapping is not None
for number in (0, 2):
    try:
        os.fstat(number)
        os.write(1, b'opened')
    except OSError:
        pass
import fcntl
ours = [tx._ring.link.number, tx._ring.mapping.number]
for number in ours:
    assert number > 2, ours
    assert fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC, ours
os.write(1, b'fine')
os._exit(0)
''' % (support.PACKAGE_PARENT, name)
        status, out, err = support.run([sys.executable, '-B', '-c', code], support.environment())
        collector.stop()
        self.assertEqual((status, out), (0, b'fine'), err)


class Threads(Traced):
    def test_threads_lose_and_double_nothing(self):
        self.attach()

        def work(name):
            for number in range(300):
                tx = transactions.begin('GET', '/%s/%d' % (name, number))
                tx.sql('select 1', 'sqlite', 'x').end(1)
                tx.end(200)
                if number % 50 == 0:
                    time.sleep(0.01)
        threads = [threading.Thread(target=work, args=(name,)) for name in 'abcdef']
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in range(500):
            self.ring.drain()
            if not self.ring.queue:
                break
            time.sleep(0.005)
        found = self.collector.wait(1801)
        account = self.check_account()
        self.assertEqual(account['ended'], account['taken'] + account['queue_full'])
        self.assertEqual(len(set(frame['id'] for frame in found)), len(found))

    def test_a_lost_right_to_drain_is_found(self):
        self.attach()
        self.ring.right[0] = 'thrown out'
        self.request('/after')
        self.assertEqual([frame['path'] for frame in self.collector.wait(2)][1], '/after')
        self.check_account()

    def test_a_right_that_only_changed_hands_is_not_taken_for_lost(self):
        self.attach()
        right, first, second = self.ring.right, ['first'], ['second']
        look = sys._current_frames

        def change_hands():
            found = look()
            right[0] = second
            return found
        right[0] = first
        sys._current_frames = change_hands
        try:
            self.assertFalse(self.ring._is_busy(right, first))
            self.assertTrue(self.ring.right is right, 'still the next one to drain')
        finally:
            sys._current_frames = look
        self.assertFalse(self.ring._is_busy(right, second))
        self.assertTrue(self.ring.right is not right, 'nobody was draining: a new right')

    def test_an_interrupted_move_is_finished_by_the_next(self):
        self.attach()
        ring = self.ring

        class Interrupt(Exception):
            pass

        class Queue(object):
            """The real queue, whose popleft is interrupted once: as if a signal handler had raised there."""
            def __init__(self, queue, when):
                self.queue = queue
                self.when = when

            def __getitem__(self, index):
                return self.queue[index]

            def __len__(self):
                return len(self.queue)

            def extend(self, items):
                self.queue.extend(items)

            def popleft(self):
                if self.when == 'before':
                    self.when = None
                    raise Interrupt
                self.queue.popleft()
                if self.when == 'after':
                    self.when = None
                    raise Interrupt
        for when in ('before', 'after'):
            real = ring.queue
            ring.queue = Queue(real, when)
            self.assertRaises(Interrupt, self.request, '/' + when)
            ring.queue = real
        self.request('/last')
        self.assertEqual([frame['path'] for frame in self.others(3)], ['/before', '/after', '/last'])
        self.check_account()


class Running(Traced):
    def test_a_running_transaction_is_shown_with_what_it_does(self):
        self.attach()
        ring = self.collector.rings[0]
        tx = transactions.begin('GET', '/orders/7')
        self.assertEqual([(slot['name'], slot['state'], slot['id']) for slot in ring.running()],
                         [('GET /orders/7', 0, '%016x' % tx.id)])
        tx.set_name('/orders/<int:pk>')
        self.assertEqual(ring.running()[0]['name'], 'GET /orders/<int:pk>')
        step = tx.sql('select * from item', 'sqlite', 'x')
        self.assertEqual((ring.running()[0]['state'], ring.running()[0]['text']), (2, 'select * from item'))
        step.end()
        self.assertEqual(ring.running()[0]['state'], 0)
        step = tx.http('GET', 'http://peer/x', 'peer:80')
        self.assertEqual((ring.running()[0]['state'], ring.running()[0]['text']), (3, 'http://peer/x'))
        step.end(200)
        tx.end(200)
        self.assertEqual(ring.running(), [])

    def test_more_than_there_are_slots(self):
        self.attach()
        begun = []
        for number in range(300):
            transactions._set(None)
            begun.append(transactions.begin('GET', '/%d' % number))
        self.assertEqual(len(self.collector.rings[0].running()), 256)
        for tx in begun:
            tx.end(200)
        self.assertEqual(self.collector.rings[0].running(), [])
        self.collector.wait(301)
        self.check_account()

    def test_the_collector_asks_for_a_stack(self):
        self.attach()
        ring = self.collector.rings[0]
        tx = transactions.begin('GET', '/slow')
        tx.sql('select 1', 'sqlite', 'x').end()
        time.sleep(0.11)
        slot = ring.running()[0]['slot']
        # One stack for each number, however many steps follow before the collector takes it back.
        for number in (b'\1', b'\1', b'\0', b'\2', b'\2'):
            ring.memory[512 + slot:513 + slot] = number
            tx.sql('select 2', 'sqlite', 'x').end()
        tx.end(200)
        frame = self.collector.wait(2)[1]
        stacks = [step for step in frame['steps'] if step['kind'] == 8]
        self.assertEqual(len(stacks), 2)
        self.assertIn('test_the_collector_asks_for_a_stack', stacks[0]['a'])
        self.assertTrue(frame['flags'] & 16)


class Gone(Traced):
    def test_a_collector_that_died_is_followed_by_another_that_gets_the_ring(self):
        self.attach()
        ring = self.collector.rings[0]
        self.collector.stop()
        second = Collector(self.name)
        second.rings = [ring]
        second.start()
        self.collector = second
        now = rings.clock()
        self.ring.beat_at = now - 10 * rings.SECOND
        self.ring.beat = ring.word(72)
        with second.lock:
            self.ring.renew(now)
        self.ring.link.next_try = 0
        for _ in range(100):
            self.ring.renew(rings.clock())
            self.request('/again')
            if second.requests:
                break
            time.sleep(0.01)
        self.assertEqual(second.requests[0].get('ring'), '%016x' % ring.id)
        self.check_account()


class Programs(unittest.TestCase):
    def test_at_exit_what_waits_goes_into_the_ring(self):
        name = support.Programs.name()
        collector = Collector(name).start()
        code = r'''
import sys
sys.path.insert(0, %r)
from whatap import _launch, tx, hooks
hooks.install()
_launch.take('1;_name=%s')
tx.begin('GET', '/a').end(200)
''' % (support.PACKAGE_PARENT, name)
        for _ in range(5):
            status, out, err = support.run([sys.executable, '-B', '-c', code], support.environment())
            self.assertEqual((status, out, err), (0, b'', b''))
        self.assertEqual(len(collector.wait(5)), 5)
        collector.stop()

    def test_a_collector_that_is_stopped_in_the_middle_blocks_nobody(self):
        name = support.Programs.name()
        process = subprocess.Popen([sys.executable, os.path.join(support.HERE, 'fake_collector.py'), name],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            process.stdout.readline()
            code = r'''
import os, sys, time
sys.path.insert(0, %r)
from whatap import _launch, tx, hooks
hooks.install()
_launch.take('1;_name=%s')
tx.begin('GET', '/a').end(200)
time.sleep(0.05)
tx.begin('GET', '/a').end(200)
assert tx._ring.mapping is not None
os.kill(%d, 19)
begun = time.time()
for _ in range(3000):
    tx.begin('GET', '/b').end(200)
assert time.time() - begun < 5
''' % (support.PACKAGE_PARENT, name, process.pid)
            begun = time.time()
            status, out, err = support.run([sys.executable, '-B', '-c', code], support.environment())
            self.assertEqual((status, out, err), (0, b'', b''))
            self.assertLess(time.time() - begun, 10)
        finally:
            process.kill()
            process.communicate()


if __name__ == '__main__':
    unittest.main()
