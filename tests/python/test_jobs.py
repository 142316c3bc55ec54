"""Batch jobs and programs that are one transaction: the body runs once, and nothing about the program changes."""
import inspect
import os
import shutil
import sys
import tempfile
import textwrap
import unittest

import support
from fake_collector import Collector
from traced import Traced

import whatap


class BatchProfiling(Traced):
    """[L27]"""

    def test_l27_a_job_that_returns_nothing_runs_once(self):
        ran = []

        @whatap.batch_profiling
        def job(value, more=0):
            """Its text."""
            ran.append((value, more))

        self.assertIsNone(job(1, more=2))
        self.assertEqual(ran, [(1, 2)])
        self.assertEqual((job.__name__, job.__doc__), ('job', 'Its text.'))
        self.assertEqual(len(self.others(1)), 1)

    def test_l27_a_job_that_raises_runs_once_and_its_exception_is_the_same(self):
        ran, error = [], ValueError('broken')

        @whatap.batch_profiling
        def job():
            ran.append(1)
            raise error

        with self.assertRaises(ValueError) as caught:
            job()
        self.assertIs(caught.exception, error)
        self.assertEqual(ran, [1])
        self.assertEqual(len(self.others(1)), 1)

    def test_l27_falsy_results_are_results(self):
        for result in ([], 0, '', False):
            ran = []

            @whatap.batch_profiling
            def job():
                ran.append(1)
                return result
            self.assertIs(job(), result)
            self.assertEqual(ran, [1])

    @unittest.skipIf(sys.version_info < (3,), 'a generator cannot be handed on unchanged')
    def test_a_generator_job_is_one_transaction_over_all_its_values(self):
        ran = []

        @whatap.batch_profiling
        def job():
            ran.append('begun')
            got = yield 1
            ran.append(got)
            yield 2

        self.assertTrue(inspect.isgeneratorfunction(job))
        values = job()
        self.assertEqual(ran, [])
        self.assertEqual([next(values), values.send('sent')], [1, 2])
        self.assertRaises(StopIteration, next, values)
        self.assertEqual(ran, ['begun', 'sent'])
        self.assertEqual(len(self.others(1)), 1)

    @unittest.skipIf(sys.version_info < (3, 7), 'asyncio.run')
    def test_a_coroutine_job_is_one_transaction(self):
        import asyncio
        names = {}
        exec(textwrap.dedent('''
            import asyncio, whatap
            ran = []

            @whatap.batch_profiling
            async def job(fail):
                ran.append(fail)
                await asyncio.sleep(0)
                if fail:
                    raise KeyError(fail)
            '''), names)
        self.assertTrue(inspect.iscoroutinefunction(names['job']))
        self.assertIsNone(asyncio.run(names['job'](0)))
        self.assertRaises(KeyError, asyncio.run, names['job'](1))
        self.assertEqual(names['ran'], [0, 1])
        self.assertEqual(len(self.others(2)), 2)


class Program(unittest.TestCase):
    """Programs of their own, with standalone_enabled, and a collector here."""

    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.name = support.Programs.name()
        self.collector = Collector(self.name).start()

    def tearDown(self):
        self.collector.stop()
        shutil.rmtree(self.directory)

    def run_(self, text, *arguments, **more):
        """The program's transactions: what was seen of them."""
        file = os.path.join(self.directory, more.pop('file', 'nightly.py'))
        with open(file, 'w') as out:
            out.write(textwrap.dedent(text))
        launch = '1;_name=%s;standalone_enabled=true%s' % (self.name, more.pop('options', ''))
        words = [sys.executable] + list(more.pop('flags', [file])) + list(arguments)
        bare = support.run(words, support.environment(), cwd=self.directory)
        seen = support.run(words, support.environment(launch), cwd=self.directory)
        self.assertEqual(seen, bare)
        self.status = seen[0]
        found = self.collector.wait(more.pop('count', 1), 1)
        return [(frame['path'], frame['error_class'] != '') for frame in found]

    def test_a_script_is_one_transaction_named_after_it(self):
        self.assertEqual(self.run_('print(1)'), [('nightly.py', False)])

    def test_an_exception_that_nobody_caught_is_the_transactions(self):
        self.assertEqual(self.run_('def work():\n    raise ValueError("no")\nwork()'), [('nightly.py', True)])
        self.assertEqual(self.status, 1)

    def test_an_exit_status_is_no_exception(self):
        self.assertEqual(self.run_('import sys; sys.exit(3)'), [('nightly.py', False)])
        self.assertEqual(self.status, 3)

    def test_a_module_has_its_full_name(self):
        self.assertEqual(self.run_('', flags=['-m', 'this'], file='unused.py'), [('this', False)])

    def test_a_management_command_is_told_from_the_others(self):
        self.assertEqual(self.run_('pass', 'migrate', '--noinput', file='manage.py'), [('manage.py migrate', False)])

    def test_what_serves_and_what_has_no_name_is_left_alone(self):
        self.assertEqual(self.run_('pass', 'runserver', file='manage.py'), [])
        self.assertEqual(self.run_('', flags=['-c', 'pass']), [])

    def test_a_forked_child_that_ends_in_the_normal_way_is_not_the_program(self):
        self.assertEqual(self.run_('''
            import os, sys
            child = os.fork()
            if not child:
                sys.exit(0)
            os.waitpid(child, 0)
            '''), [('nightly.py', False)])

    def test_the_functions_that_are_named_are_transactions_instead(self):
        self.assertEqual(self.run_('''
            import sys

            def work(number):
                if number > 1:
                    raise ValueError(number)
                return number

            class Shop(object):
                @staticmethod
                def close():
                    return other()

            def other():
                return 3

            print(work(0), work(1), Shop.close(), work.__name__, sys.gettrace())
            try:
                work(2)
            except ValueError as error:
                print(error)
            raise KeyError('this line')
            ''', count=4, options=';standalone_type=multiple-transaction;standalone_transaction_patterns=__main__:work,__main__:Shop.close'),
            [('__main__:work', False), ('__main__:work', False), ('__main__:Shop.close', False), ('__main__:work', True)])

    def test_all_functions_of_a_script(self):
        for flags in ([], ['-m', 'nightly']):
            more = {'flags': flags} if flags else {}
            self.assertEqual(self.run_('''
                def one():
                    return two()

                def two():
                    pass

                one()
                two()
                ''', count=2, options=';standalone_type=multiple-transaction;standalone_transaction_patterns=__main__:*', **more),
                [('__main__:one', False), ('__main__:two', False)])
            self.collector.stop()
            self.collector = Collector(self.name).start()

    def test_a_script_that_traces_itself_is_left_alone(self):
        self.assertEqual(self.run_('''
            import sys

            seen = []

            def trace(frame, event, argument):
                seen.append(frame.f_code.co_name)

            def work():
                pass

            def other():
                pass

            work()
            sys.settrace(trace)
            other()
            sys.settrace(None)
            print(seen)
            ''', options=';standalone_type=multiple-transaction;standalone_transaction_patterns=__main__:work,__main__:absent'),
            [('__main__:work', False)])

    def test_a_request_inside_is_a_transaction_of_its_own(self):
        paths = self.run_('''
            import whatap

            @whatap.register_app
            def app(environ, start_response):
                start_response('200 OK', [])
                return [b'x']

            body = app({'REQUEST_METHOD': 'GET', 'PATH_INFO': '/inside'}, lambda *a: None)
            print(list(body))
            getattr(body, 'close', lambda: None)()
            ''', count=2)
        self.assertEqual(sorted(paths), [('/inside', False), ('nightly.py', False)])


if __name__ == '__main__':
    unittest.main()
