"""The interpreter's own tests of what we patch, with our hooks in place: they pass as they do without."""
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESTS = ['test_httplib', 'test_logging', 'test_sqlite3', 'test_urllib2_localnet', 'test_xmlrpc']


class StandardLibrary(unittest.TestCase):
    def run_tests(self, traced):
        environ = dict(os.environ, PYTHONDONTWRITEBYTECODE='1')
        if traced:
            environ['PYTHONPATH'] = os.path.join(ROOT, 'bootstrap', 'whatap', 'bootstrap')
            environ['WHATAP_LAUNCH'] = '1;_name=whatap-nobody-%d' % os.getpid()
        process = subprocess.Popen([sys.executable, '-m', 'test', '-q'] + TESTS, env=environ, cwd=tempfile.gettempdir(),
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = process.communicate()[0].decode('utf-8', 'replace')
        return process.returncode, output

    def test_with_hooks(self):
        code, output = self.run_tests(True)
        if code:
            bare, bare_output = self.run_tests(False)
            if bare:
                self.skipTest('they fail without a tracer as well:\n' + bare_output[-1000:])
        self.assertEqual(code, 0, output[-3000:])


if __name__ == '__main__':
    unittest.main()
