"""Real servers with worker processes, started as the launcher starts them: every request arrives, the first of each worker too."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, 'tests', 'python'))
import fake_collector  # noqa: E402

try:
    from http import client as httplib
except ImportError:  # Python 2.7
    import httplib

BIN = os.path.dirname(sys.executable)


def free_port():
    place = socket.socket()
    place.bind(('127.0.0.1', 0))
    port = place.getsockname()[1]
    place.close()
    return port


def statements(frame):
    return [step for step in frame['steps'] if step['kind'] in (1, 'sql')]


def needs(name):
    return unittest.skipUnless(os.path.exists(os.path.join(BIN, name)), name + ' is not installed for this Python')


def needs_module(name):
    try:
        __import__(name)
    except ImportError:
        return unittest.skip(name + ' is not installed for this Python')
    return lambda test: test


class Servers(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix='wsv')
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.name = 'whatap-test-%d-%d' % (os.getpid(), time.time() * 1e6)
        self.collector = fake_collector.Collector(self.name).start()
        self.addCleanup(self.collector.stop)
        self.port = free_port()
        self.process = None

    def environ(self):
        environ = dict(os.environ)
        environ.update(PYTHONPATH=os.path.join(ROOT, 'bootstrap', 'whatap', 'bootstrap'), PYTHONDONTWRITEBYTECODE='1', WHATAP_LAUNCH='1;_name=%s;_home=%s' % (self.name, self.directory),
                       STOCK_DB=os.path.join(self.directory, 'stock.sqlite3'), PEER_URL='http://127.0.0.1:1',
                       DATABASE_URL='sqlite:///' + os.path.join(self.directory, 'shop.sqlite3'), DJANGO_SETTINGS_MODULE='shop.settings')
        return environ

    def start(self, command, app='flask_stock'):
        """Starts the server and waits until it answers; what it prints goes to a file."""
        self.log = os.path.join(self.directory, 'log')
        with open(self.log, 'w') as log:
            self.process = subprocess.Popen(
                [part % {'port': self.port} for part in command], cwd=os.path.join(ROOT, 'tests', 'apps', app), env=self.environ(), stdout=log, stderr=subprocess.STDOUT)
        self.addCleanup(self.kill)
        for _ in range(400):
            try:
                socket.create_connection(('127.0.0.1', self.port), 1).close()
                return
            except socket.error:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        self.fail('did not start:\n' + self.printed())

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait_for_print(self, text, count):
        for _ in range(400):
            if self.printed().count(text) >= count:
                break
            time.sleep(0.05)

    def printed(self):
        with open(self.log) as log:
            return log.read()

    def get(self, path):
        connection = httplib.HTTPConnection('127.0.0.1', self.port, timeout=30)
        try:
            connection.request('GET', path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def load(self, path, count, threads=4, status=200):
        """Sends `count` requests over several threads."""
        wrong = []

        def work(number):
            for _ in range(number):
                try:
                    answer = self.get(path)
                except Exception as error:
                    answer = (None, repr(error))
                if answer[0] != status:
                    wrong.append(answer)

        parts = [count // threads + (1 if index < count % threads else 0) for index in range(threads)]
        workers = [threading.Thread(target=work, args=(part,)) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(wrong, [], self.printed())

    def stop(self, may_print=()):
        """Ends it as an init system does. Without a tracer it would end with 0, too."""
        self.process.terminate()
        self.assertEqual(self.process.wait(), 0, self.printed())
        printed = self.printed()
        if not any(text in printed for text in may_print):
            self.assertNotIn('Traceback', printed)
        self.assertNotIn('whatap', printed.replace(ROOT, '').replace(self.name, ''))

    def assert_frames(self, expected, name, workers):
        """Exactly so many transactions of this name, from so many processes at least, and an identity that adds up."""
        found = [frame for frame in self.collector.wait(expected) if frame['name'] == name]
        self.assertEqual(len(found), expected)
        self.assertEqual(set(frame['status'] for frame in found), set([200]))
        self.assertGreaterEqual(len(set(frame['ring'] for frame in found)), workers)
        for ring in self.collector.rings:
            counts = ring.counters()
            self.assertEqual(counts['ended'], counts['taken'], counts)
            self.assertEqual(counts['failures'], 0, counts)
        return found

    def gunicorn(self, *options):
        return [sys.executable, os.path.join(BIN, 'gunicorn'), '-b', '127.0.0.1:%(port)d', '--log-level', 'warning'] + list(options) + ['stock:app']

    def test_gunicorn_workers(self):
        self.start(self.gunicorn('-w', '3'))
        self.load('/sql?n=3', 60)
        found = self.assert_frames(60, '/sql', 1)
        self.assertTrue(all(len(statements(frame)) == 3 for frame in found), found[0])
        self.stop()

    def test_gunicorn_threads(self):
        self.start(self.gunicorn('-w', '2', '--threads', '4'))
        self.load('/slow?seconds=0.01', 60, threads=8)
        self.assert_frames(60, '/slow', 1)
        self.stop()

    def test_gunicorn_preloaded(self):
        self.start(self.gunicorn('-w', '3', '--preload'))
        self.load('/slow?seconds=0.02', 60, threads=6)
        self.assert_frames(60, '/slow', 2)
        self.stop()

    def test_gunicorn_workers_that_live_for_three_requests(self):
        self.start(self.gunicorn('-w', '2', '--max-requests', '3'))
        self.load('/', 45, threads=2)
        self.assert_frames(45, '/', 8)
        self.stop()

    @needs_module('gevent')
    def test_gunicorn_with_gevent(self):
        self.start(self.gunicorn('-w', '2', '-k', 'gevent'))
        self.load('/slow?seconds=0.05', 60, threads=10)
        found = self.assert_frames(60, '/slow', 1)
        self.assertTrue(all(50000 <= frame['duration'] < 3000000 for frame in found))
        self.load('/thread', 10)
        found = [frame for frame in self.collector.wait(70) if frame['name'] == '/thread']
        self.assertEqual([len(statements(frame)) for frame in found], [4] * 10)
        self.stop(['greenlet is being finalized'])  # gevent's own, without a tracer as well

    def uwsgi(self, *options):
        return [os.path.join(BIN, 'uwsgi'), '--http-socket', '127.0.0.1:%(port)d', '--home', os.path.dirname(BIN), '--wsgi-file', 'stock.py', '--callable', 'app',
                '--master', '--die-on-term', '--disable-logging', '--need-app', '--processes', '3'] + list(options)

    @needs('uwsgi')
    def test_uwsgi_without_fork_hooks(self):
        self.start(self.uwsgi())
        self.load('/slow?seconds=0.02', 60, threads=6)
        self.assert_frames(60, '/slow', 2)
        self.stop()

    @needs('uwsgi')
    def test_uwsgi_with_fork_hooks_and_threads(self):
        self.start(self.uwsgi('--py-call-osafterfork', '--enable-threads', '--threads', '2'))
        self.load('/slow?seconds=0.02', 60, threads=6)
        self.assert_frames(60, '/slow', 2)
        self.stop()

    @needs('uwsgi')
    def test_uwsgi_with_an_application_per_worker(self):
        self.start(self.uwsgi('--lazy-apps'))
        self.wait_for_print('WSGI app 0', 3)
        self.load('/slow?seconds=0.02', 60, threads=6)
        self.assert_frames(60, '/slow', 2)
        self.stop()

    def prepare_shop(self):
        for command in (['migrate', '-v0'], ['seed', '--orders', '20']):
            subprocess.check_output([sys.executable, 'manage.py'] + command, cwd=os.path.join(ROOT, 'tests', 'apps', 'django_shop'), env=self.environ())
        self.assertEqual(self.collector.frames(), [])

    def test_gunicorn_with_django(self):
        self.prepare_shop()
        command = self.gunicorn('-w', '2')[:-1] + ['shop.wsgi']
        self.start(command, 'django_shop')
        self.load('/report?customers=4', 20)
        found = self.assert_frames(20, '/report', 1)
        self.assertTrue(all(len(statements(frame)) == 5 for frame in found))
        self.stop()

    @needs('uvicorn')
    def test_gunicorn_with_uvicorns_workers(self):
        self.prepare_shop()
        command = self.gunicorn('-w', '2', '-k', 'uvicorn.workers.UvicornWorker')[:-1] + ['shop.asgi:application']
        self.start(command, 'django_shop')
        self.load('/async?seconds=0.05', 40, threads=10)
        self.assert_frames(40, '/async', 1)
        self.stop()

    @needs('uvicorn')
    def test_uvicorn_with_django(self):
        self.prepare_shop()
        self.start([sys.executable, os.path.join(BIN, 'uvicorn'), '--port', '%(port)d', '--workers', '2', '--log-level', 'warning', 'shop.asgi:application'], 'django_shop')
        self.load('/async?seconds=0.05', 60, threads=10)
        self.assert_frames(60, '/async', 1)
        self.load('/report?customers=4', 10)
        self.assertEqual(len([frame for frame in self.collector.wait(70) if frame['name'] == '/report']), 10)
        self.stop()


if __name__ == '__main__':
    unittest.main()
