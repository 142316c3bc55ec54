"""Compiled files that were cut, as a full disk leaves them: the program runs, and the next process is traced again."""
import os
import shutil
import sys
import tempfile
import unittest

import support
from fake_collector import Collector

PROGRAM = """
import sqlite3, sys, threading, time, whatap
from whatap import tx as transactions

@whatap.method_profiling
def job():
    return sqlite3.connect(':memory:').execute('select 7').fetchall()

for _ in range(400):
    assert job() == [(7,)]
    if transactions._ring.mapping is not None:
        break
    time.sleep(0.005)
thread = threading.Thread(target=job)
thread.start()
thread.join()
print('done')
"""
# What a program without `import whatap` sees.
PLAIN = """
import sqlite3, threading
assert sqlite3.connect(':memory:').execute('select 7').fetchall() == [(7,)]
thread = threading.Thread(target=int)
thread.start()
thread.join()
print('done')
"""


@unittest.skipIf(sys.version_info[0] == 2, 'Python 2.7 removes a file that it could not write')
class Cut(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        shutil.copytree(os.path.join(support.PACKAGE_PARENT, 'whatap'), self.directory + '/whatap', ignore=shutil.ignore_patterns('__pycache__'))
        self.collector = Collector(support.Programs.name()).start()
        self.addCleanup(self.collector.stop)
        self.launch = '1;_name=' + self.collector.name

    def run_program(self, program):
        env = support.environment(self.launch, PYTHONPATH=self.directory + '/whatap/bootstrap')
        del env['PYTHONDONTWRITEBYTECODE']
        return support.run([sys.executable, '-W', 'ignore', '-c', program], env)

    def compiled(self):
        found = []
        for place in ('whatap/__pycache__', 'whatap/instrument/__pycache__'):
            directory = os.path.join(self.directory, place)
            found += [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith('.pyc')]
        return found

    def cut(self, path):
        with open(path, 'r+b') as file:
            file.truncate(max(os.path.getsize(path) // 2, 17))

    def test_whichever_file_it_is_the_program_runs_and_the_next_one_is_traced(self):
        self.assertEqual(self.run_program(PROGRAM), (0, b'done\n', b''))
        for name in ('__init__', '_start', '_launch', 'guard', 'hooks', 'tx', 'attach', '_api', 'threads'):
            path = [path for path in self.compiled() if os.path.basename(path).split('.')[0] == name][0]
            self.cut(path)
            self.assertEqual(self.run_program(PLAIN), (0, b'done\n', b''), name)
            rings = len(self.collector.rings)
            if os.path.exists(path):
                # Nothing of it was needed there: a program that asks for it must not suffer, but may go untraced once.
                self.run_program(PROGRAM)
                rings = len(self.collector.rings)
            self.assertEqual(self.run_program(PROGRAM), (0, b'done\n', b''), name)
            self.assertEqual(len(self.collector.rings), rings + 1, name)

    def test_all_of_them(self):
        self.run_program(PROGRAM)
        for path in self.compiled():
            self.cut(path)
        self.assertEqual(self.run_program(PLAIN), (0, b'done\n', b''))
        self.run_program(PLAIN)
        self.assertEqual(self.run_program(PROGRAM), (0, b'done\n', b''))


if __name__ == '__main__':
    unittest.main()
