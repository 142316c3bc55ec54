"""What a program notices of the tracer at its start: nothing."""
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

import support
from fake_collector import Collector

LAUNCH = '1;_name=whatap-nobody-is-there'


class Start(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()

    def tearDown(self):
        shutil.rmtree(self.directory)

    def file(self, name, text=''):
        path = os.path.join(self.directory, name)
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        with open(path, 'w') as out:
            out.write(textwrap.dedent(text))
        return path

    def run_(self, *arguments, **more):
        path = more.pop('path', ())
        launch = more.pop('launch', LAUNCH)
        env = support.environment(launch, **more)
        env['PYTHONPATH'] = os.pathsep.join([support.BOOTSTRAP] + list(path))
        return support.run([sys.executable] + list(arguments), env, cwd=self.directory)

    def output(self, code, *arguments, **more):
        status, out, err = self.run_('-c', textwrap.dedent(code), *arguments, **more)
        self.assertEqual((status, err), (0, b''), err.decode('utf-8', 'replace'))
        return out.decode('utf-8')

    # -- the package

    def test_the_tracer_is_loaded_and_sys_path_gains_one_directory(self):
        out = self.output('''
            import sys, whatap
            print(len([p for p in sys.path if 'whatap' in p and p.startswith(%r)]))
            print(whatap.__file__.startswith(%r))
            import whatap.tx
            print(whatap.tx.begin is not None)
            ''' % (support.ROOT, support.PACKAGE_PARENT))
        self.assertEqual(out.split(), ['1', 'True', 'True'])

    def test_the_package_can_be_run_as_a_command(self):
        """Which starts the agent and ends."""
        parent = [support.PACKAGE_PARENT]
        status, out, err = self.run_('-m', 'whatap', '--help', path=parent)
        self.assertEqual((status, err, out[:22]), (0, b'', b'usage: python -m whatap'[:22]))
        status, out, err = self.run_('-m', 'whatap', '-V', path=parent)
        self.assertEqual((status, err, out[:9]), (0, b'', b'whatap 3.'))
        status, out, err = self.run_('-m', 'whatap', '--bogus', path=parent)
        self.assertEqual((status, out, err.count(b'\n')), (2, b'', 1))
        self.assertIn(b'--bogus', err)
        self.assertEqual(self.run_('-m', 'whatap', path=parent), (0, b'', b''))
        status, out, err = self.run_('-m', 'whatap', path=parent, launch=None, PATH='/nonexistent')
        if not os.path.exists(os.path.join(os.path.dirname(sys.executable), 'whatap_python')):
            self.assertEqual((status, out, err), (1, b'', b'whatap: no agent was started; whatap-doctor says why\n'))

    def test_nothing_is_written_and_the_exit_status_is_the_programs(self):
        self.assertEqual(self.run_('-c', 'import sys; sys.exit(7)'), (7, b'', b''))
        self.assertEqual(self.run_('-c', ''), (0, b'', b''))

    def test_warnings_as_errors(self):
        status, out, err = self.run_('-W', 'error', '-c', 'import sqlite3, json, logging, threading; print(1)')
        self.assertEqual((status, out, err), (0, b'1\n', b''))

    def test_bytes_warnings_as_errors(self):
        if sys.version_info[0] == 2:
            return
        out = self.run_('-bb', '-c', textwrap.dedent('''
            from whatap import tx
            for _ in range(3):
                t = tx.begin('GET', '/x')
                t.sql('select 1', 'sqlite', 'x').end(1)
                t.sql(b'select 1', b'sqlite', 'x').end(1)
                t.end(200)
            print(tx.guard.first_faults)
            '''))
        self.assertEqual(out, (0, b'[]\n', b''))

    def test_no_launch_no_tracer(self):
        out = self.output('import sys; print("whatap.hooks" in sys.modules, len(sys.meta_path))', launch=None)
        self.assertIn('False', out)

    def test_a_broken_launch_value_is_no_launch(self):
        for value in ('', '2;_name=x', '1;_name', '1;_name=%zz', 'x' * 100000, '1;app_name=x'):
            out = self.output('import sys; print("whatap.hooks" in sys.modules)', launch=value)
            self.assertEqual(out, 'False\n', value[:40])

    def test_switched_off(self):
        for option in ('enabled=false', 'apm_enabled=false'):
            out = self.output('import sys; print("whatap.hooks" in sys.modules)', launch=LAUNCH + ';' + option)
            self.assertEqual(out, 'False\n')

    def test_what_is_not_imported_at_start(self):
        bare = support.run([sys.executable, '-c', 'import sys; print(sorted(sys.modules))'],
                           dict(support.environment(), PYTHONPATH=''))[1]
        out = self.output('import sys; print(sorted(sys.modules))')
        new = set(eval(out)) - set(eval(bare.decode()))
        allowed = set(['sitecustomize', '_imp', '_thread', 'itertools', '_collections', 'time', 'atexit', 'posix', 'imp', 'thread'])
        foreign = [name for name in new if not name.startswith('whatap') and name not in allowed]
        self.assertEqual(foreign, [])
        self.assertLessEqual(len(new), 20)

    def test_no_thread_and_no_descriptor(self):
        code = '''
            import os
            print(len(os.listdir('/proc/self/task')), sorted(os.listdir('/proc/self/fd')))
            '''
        self.assertEqual(self.output(code), self.output(code, launch=None))

    # -- the user's own sitecustomize

    def test_the_users_sitecustomize_runs_once_under_its_name(self):
        self.file('mine/sitecustomize.py', '''
            import sys
            sys.stdout.write('ran as %s from %s\\n' % (__name__, __file__.split('/')[-2]))
            ''')
        path = [os.path.join(self.directory, 'mine')]
        out = self.output('import sys, sitecustomize; print(sitecustomize.__file__.split("/")[-2], "whatap.hooks" in sys.modules)',
                          path=path)
        self.assertEqual(out.splitlines()[0], 'ran as sitecustomize from mine')
        self.assertEqual(len(out.splitlines()), 2)
        self.assertIn('mine', out.splitlines()[1])
        self.assertIn('True', out.splitlines()[1])

    def test_a_sitecustomize_package_too(self):
        self.file('mine/sitecustomize/__init__.py', 'import sys; sys.stdout.write("package\\n")')
        out = self.output('pass', path=[os.path.join(self.directory, 'mine')])
        self.assertEqual(out, 'package\n')

    def test_what_it_does_to_sys_path_stays(self):
        self.file('mine/sitecustomize.py', 'import sys; sys.path.insert(0, "/added-by-me"); sys.path.append("/and-me")')
        out = self.output('import sys; print(sys.path.count("/added-by-me"), sys.path.count("/and-me"))',
                          path=[os.path.join(self.directory, 'mine')])
        self.assertEqual([part for part in out if part.isdigit()], ['1', '1'])

    def test_a_sitecustomize_that_fails_is_reported_as_without_us(self):
        self.file('mine/sitecustomize.py', 'raise ValueError("broken by its owner")')
        path = [os.path.join(self.directory, 'mine')]
        env = support.environment(LAUNCH)
        env['PYTHONPATH'] = path[0]
        bare = support.run([sys.executable, '-c', 'print(1)'], env)
        traced = self.run_('-c', 'print(1)', path=path)
        self.assertEqual(traced[:2], bare[:2])
        self.assertEqual(traced[2].splitlines()[-1:], bare[2].splitlines()[-1:])

    def test_usercustomize_is_not_ours(self):
        out = self.output('import sys; print("usercustomize" in sys.modules)')
        self.assertEqual(out, 'False\n')

    # -- names of the standard library

    NAMES = ('queue', 'uuid', 'struct', 'zlib', 'mmap', 'socket', 'logging', 'threading', 'json', 'ssl', 'random', 'time',
             'itertools', 'collections', 'contextvars', 'ring', 'tx', 'wire', 'hooks', 'errors', '_struct', '_random',
             '_socket', 'fcntl', 'signal', 'types', 'imp', 'atexit', 'operator', 'subprocess', 'select')

    def test_the_users_modules_of_those_names_neither_break_us_nor_are_hidden(self):
        for name in self.NAMES:
            self.file('shadow/%s.py' % name, 'WHO = "the user"\n')
        code = '''
            import sys
            seen = []
            for name in %r:
                if name == 'threading' or name in sys.builtin_module_names or name in sys.modules and not hasattr(sys.modules[name], 'WHO') and (
                        name in bare):
                    continue
                seen.append((name, getattr(__import__(name), 'WHO', None)))
            print([name for name, who in seen if who is None])
            '''
        path = [os.path.join(self.directory, 'shadow')]
        env = support.environment()
        env['PYTHONPATH'] = path[0]
        status, loaded, err = support.run([sys.executable, '-c', 'import sys; print(sorted(sys.modules))'], env)
        if status:
            return self.skipTest('this interpreter does not start with such modules: %s' % err[-200:])
        bare = 'bare = %r\n' % (eval(loaded.decode()),)
        out = self.output(bare + textwrap.dedent(code % (self.NAMES,)), path=path)
        self.assertEqual(out, '[]\n')

    def test_transactions_work_beside_the_users_modules_of_those_names(self):
        for name in self.NAMES:
            self.file('shadow/%s.py' % name, 'WHO = "the user"\n')
        name = support.Programs.name()
        collector = Collector(name).start()
        self.addCleanup(collector.stop)
        code = '''
            from whatap import tx
            for _ in range(3):
                t = tx.begin('GET', '/x')
                t.sql('select 1', 'sqlite', 'x').end(1)
                t.end(200)
            import sys
            sys.stdout.write(repr(tx.guard.first_faults))
            '''
        env = support.environment()
        env['PYTHONPATH'] = os.path.join(self.directory, 'shadow')
        if support.run([sys.executable, '-c', ''], env)[0]:
            return self.skipTest('this interpreter does not start with such modules')
        out = self.output(code, path=[os.path.join(self.directory, 'shadow')], launch='1;_name=' + name)
        self.assertEqual(out, '[]')
        self.assertEqual(len(collector.wait(3)), 3)

    def test_modules_beside_the_script(self):
        for name in self.NAMES:
            self.file('app/%s.py' % name, 'WHO = "the user"\n')
        script = self.file('app/main.py', '''
            import queue, uuid, tx
            print(queue.WHO, uuid.WHO, tx.WHO)
            ''')
        status, out, err = self.run_(script)
        self.assertEqual((status, err), (0, b''))
        self.assertEqual(out.count(b'the user'), 3)

    # -- children and other programs

    def test_package_managers_are_left_alone(self):
        for arguments in (['-m', 'pip', '--version'], ['-m', 'compileall', '-q', self.directory]):
            self.file('pip.py', 'import sys; print("whatap.hooks" in sys.modules)')
            status, out, err = self.run_(*arguments)
            self.assertNotIn(b'True', out)
        script = self.file('bin/pip3.11', 'import sys; print("whatap.hooks" in sys.modules)')
        self.assertEqual(self.run_(script)[1], b'False\n')
        self.assertEqual(self.run_(script, launch=LAUNCH + ';trace_child_process=always')[1], b'True\n')

    def test_children_may_be_left_alone(self):
        out = self.output('import sys; print("whatap.hooks" in sys.modules)',
                          launch=LAUNCH + ';trace_child_process=never;_pid=1')
        self.assertEqual(out, 'False\n')

    def test_a_child_whose_output_is_parsed(self):
        out = self.output('''
            import subprocess, sys
            print(subprocess.Popen([sys.executable, '-c', 'print(42)'], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT).communicate()[0])
            ''')
        self.assertIn('42', out)
        self.assertEqual(len(out.split()), 1)

    def test_the_working_directory_is_gone(self):
        gone = os.path.join(self.directory, 'gone')
        os.mkdir(gone)
        code = 'import os; os.rmdir(%r); os.execv(%r, [%r, "-c", "print(1)"])' % (gone, sys.executable, sys.executable)
        process = subprocess.Popen([sys.executable, '-c', code], cwd=gone, env=support.environment(LAUNCH),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(process.communicate()[0], b'1\n')

    def test_agent_from_code(self):
        name = support.Programs.name()
        collector = Collector(name).start()
        self.addCleanup(collector.stop)
        code = '''
            import os, sys
            sys.path.insert(0, %r)
            import whatap
            os.environ['WHATAP_LAUNCH'] = '1;_name=%s'
            assert whatap.agent()
            @whatap.method_profiling
            def work(): return 5
            assert work() == 5
            ''' % (support.PACKAGE_PARENT, name)
        status, out, err = support.run([sys.executable, '-c', textwrap.dedent(code)],
                                       dict(support.environment(), PYTHONPATH=''))
        self.assertEqual((status, err), (0, b''))
        self.assertEqual([frame['name'] for frame in collector.wait(1)], ['__main__:work'])

    # -- without a launcher

    def test_the_helper_is_asked_where_there_is_a_home(self):
        helper = self.file('bin/whatap_python', '#!/bin/sh\n[ "$1" = --ensure ] && echo "%s"\n' % LAUNCH)
        os.chmod(helper, 0o755)
        path = os.path.dirname(helper) + ':' + os.environ['PATH']
        code = 'import sys; print("whatap.hooks" in sys.modules)'
        env = {'PATH': path}
        self.assertEqual(self.output(code, launch=None, WHATAP_HOME=self.directory, **env), 'True\n')
        self.assertEqual(self.output(code, launch=None, **env), 'False\n')

    def test_a_helper_that_hangs_is_given_up(self):
        helper = self.file('bin/whatap_python', '#!/bin/sh\nexec sleep 30\n')
        os.chmod(helper, 0o755)
        import time
        begun = time.time()
        out = self.output('import sys; print("whatap.hooks" in sys.modules)', launch=None, WHATAP_HOME=self.directory,
                          PATH=os.path.dirname(helper) + ':' + os.environ['PATH'])
        self.assertEqual(out, 'False\n')
        self.assertLess(time.time() - begun, 5)

    def test_a_helper_that_fails_leaves_no_child(self):
        helper = self.file('bin/whatap_python', '#!/bin/sh\nexit 3\n')
        os.chmod(helper, 0o755)
        out = self.output('''
            import os
            try:
                os.waitpid(-1, os.WNOHANG)
                print('a child')
            except OSError:
                print('none')
            ''', launch=None, WHATAP_HOME=self.directory, PATH=os.path.dirname(helper) + ':' + os.environ['PATH'])
        self.assertEqual(out, 'none\n')


if __name__ == '__main__':
    unittest.main()
