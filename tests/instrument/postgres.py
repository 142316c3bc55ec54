"""The PostgreSQL of the tests: run.py starts one for all of them and names it in the environment."""
import os
import shutil
import sys
import tempfile
import unittest

VARIABLE = 'WHATAP_TEST_POSTGRES'  # "host port user database password", set by run.py
PASSWORD = 'hunter2'


class Server(object):
    """A cluster in a directory of its own. `address` is what VARIABLE takes. Raises Unavailable if this machine has no PostgreSQL."""

    def __init__(self):
        postgres = library()
        self.directory = tempfile.mkdtemp(prefix='wpg')
        self.cluster = postgres.Postgres(self.directory, PASSWORD)
        try:
            self.cluster.start()
        except BaseException:
            self.stop()
            raise
        self.address = '127.0.0.1 %d %s %s %s' % (self.cluster.port, self.cluster.user, self.cluster.database, PASSWORD)

    def stop(self):
        self.cluster.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def library():
    """scripts/lib/postgres.py, under a name that is not ours. Python 3 only, as run.py is."""
    import importlib.util
    if 'postgres_cluster' in sys.modules:
        return sys.modules['postgres_cluster']
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), 'scripts', 'lib', 'postgres.py')
    spec = importlib.util.spec_from_file_location('postgres_cluster', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_own = []


def address():
    """Connection arguments of the server that run.py started, else of one of this process. Skips without PostgreSQL."""
    given = os.environ.get(VARIABLE)
    if not given:
        if not _own:
            if sys.version_info < (3, 6):
                raise unittest.SkipTest('start these tests through run.py')
            try:
                _own.append(Server())
            except library().Unavailable as reason:
                raise unittest.SkipTest(str(reason))
            import atexit
            atexit.register(_own[0].stop)
        given = _own[0].address
    host, port, user, database, password = given.split()
    return {'host': host, 'port': port, 'user': user, 'dbname': database, 'password': password}
