"""A PostgreSQL server of the tests' own, on a unix socket and a free port, in a directory that goes with it."""
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

VARIABLE = 'WHATAP_TEST_POSTGRES'  # "host port user database password", set by run.py
PASSWORD = 'hunter2'
NOBODY = '65534'  # initdb refuses root


class Missing(Exception):
    pass


class Server(object):
    """`address` is what VARIABLE takes. Raises Missing if this machine has no PostgreSQL."""

    def __init__(self):
        found = sorted(glob.glob('/usr/lib/postgresql/*/bin/initdb'))
        if not found:
            raise Missing('no PostgreSQL in /usr/lib/postgresql: apt-get install postgresql')
        binaries = os.path.dirname(found[-1])
        self.directory = tempfile.mkdtemp(prefix='wpg')
        os.chmod(self.directory, 0o755)
        self.as_nobody = []
        if os.getuid() == 0:
            os.chown(self.directory, int(NOBODY), int(NOBODY))
            self.as_nobody = ['setpriv', '--reuid', NOBODY, '--regid', NOBODY, '--clear-groups']
        data = os.path.join(self.directory, 'data')
        password = os.path.join(self.directory, 'password')
        with open(password, 'w') as file:
            file.write(PASSWORD)
        try:
            self.run([binaries + '/initdb', '-D', data, '-U', 'tester', '-A', 'scram-sha-256', '--pwfile', password, '-E', 'UTF8', '--locale', 'C', '-N'])
            self.port = free_port()
            self.log = open(os.path.join(self.directory, 'log'), 'w')
            self.process = subprocess.Popen(
                self.as_nobody + [binaries + '/postgres', '-D', data, '-p', str(self.port), '-c', 'listen_addresses=127.0.0.1', '-k', self.directory,
                                  '-c', 'fsync=off', '-c', 'shared_buffers=16MB', '-c', 'max_connections=50'],
                cwd=self.directory, stdout=self.log, stderr=subprocess.STDOUT)
            self.log.close()
            self.wait(binaries)
        except BaseException:
            self.stop()
            raise
        self.address = '127.0.0.1 %d tester postgres %s' % (self.port, PASSWORD)

    def run(self, command):
        process = subprocess.Popen(self.as_nobody + command, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = process.communicate()[0]
        if process.returncode != 0:
            raise RuntimeError(output.decode('utf-8', 'replace'))

    def wait(self, binaries):
        for _ in range(200):
            if subprocess.call([binaries + '/pg_isready', '-q', '-h', '127.0.0.1', '-p', str(self.port)]) == 0:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        with open(os.path.join(self.directory, 'log')) as log:
            raise RuntimeError('PostgreSQL did not start: ' + log.read()[-2000:])

    def stop(self):
        process = getattr(self, 'process', None)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def free_port():
    place = socket.socket()
    place.bind(('127.0.0.1', 0))
    port = place.getsockname()[1]
    place.close()
    return port


_own = []


def address():
    """Connection arguments of the server that run.py started, else of one of this process. Skips without PostgreSQL."""
    given = os.environ.get(VARIABLE)
    if not given:
        if not _own:
            try:
                _own.append(Server())
            except Missing as missing:
                raise unittest.SkipTest(str(missing))
            import atexit
            atexit.register(_own[0].stop)
        given = _own[0].address
    host, port, user, database, password = given.split()
    return {'host': host, 'port': port, 'user': user, 'dbname': database, 'password': password}
