"""Import hooks: modules are instrumented as they are imported, and stay what they are."""
import os
import shutil
import sys
import tempfile
import unittest

import support  # noqa: F401
from whatap import guard, hooks

hooks.install()


class Importing(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()
        sys.path.insert(0, self.directory)
        self.seen = []
        self.names = []

    def tearDown(self):
        sys.path.remove(self.directory)
        shutil.rmtree(self.directory)
        for name in self.names:
            sys.modules.pop(name, None)
            hooks._rows.pop(name, None)

    def module(self, name, text=''):
        path = os.path.join(self.directory, *name.split('.'))
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        with open(path + '.py', 'w') as out:
            out.write(text)
        self.names.append(name)
        hooks.register(name, None, self.seen.append)

    def test_a_module_is_instrumented_after_it_ran(self):
        self.module('fresh_one', 'VALUE = 5\nLOADER = globals().get("__loader__")\n')
        import fresh_one
        self.assertEqual(self.seen, [fresh_one])
        self.assertEqual(fresh_one.VALUE, 5)

    def test_its_spec_and_loader_are_the_real_ones(self):
        if sys.version_info[0] == 2:
            return
        self.module('fresh_two')
        import fresh_two
        import importlib.machinery
        self.assertIs(type(fresh_two.__loader__), importlib.machinery.SourceFileLoader)
        self.assertIs(fresh_two.__spec__.loader, fresh_two.__loader__)
        self.assertNotIn('exec_module', fresh_two.__loader__.__dict__)
        import importlib
        self.assertIs(importlib.reload(fresh_two), fresh_two)

    def test_asking_for_a_spec_does_not_import(self):
        if sys.version_info[0] == 2:
            return
        import importlib.util
        self.module('fresh_three')
        spec = importlib.util.find_spec('fresh_three')
        self.assertEqual((self.seen, spec.name), ([], 'fresh_three'))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.assertEqual(self.seen, [module])

    def test_a_module_that_fails_fails_as_it_does(self):
        self.module('fresh_four', 'raise ValueError("broken")')
        self.assertRaises(ValueError, __import__, 'fresh_four')
        self.assertEqual(self.seen, [])
        self.assertNotIn('fresh_four', sys.modules)

    def test_a_module_that_is_not_there(self):
        hooks.register('fresh_five', None, self.seen.append)
        self.assertRaises(ImportError, __import__, 'fresh_five')

    def test_an_instrumentation_that_fails_is_not_the_programs_affair(self):
        self.module('fresh_six', 'VALUE = 6')
        hooks._rows['fresh_six'] = [('no_such_file', 'instrument'), (None, lambda module: module.nothing)]
        import fresh_six
        self.assertEqual(fresh_six.VALUE, 6)
        del guard.first_faults[:]

    def test_zip_files(self):
        import zipfile
        path = os.path.join(self.directory, 'zipped.zip')
        with zipfile.ZipFile(path, 'w') as out:
            out.writestr('fresh_seven.py', 'VALUE = 7')
            out.writestr('fresh_eight.py', 'VALUE = 8')
        sys.path.insert(0, path)
        for name in ('fresh_seven', 'fresh_eight'):
            self.names.append(name)
            hooks.register(name, None, self.seen.append)
        try:
            import fresh_seven
            import fresh_eight
        finally:
            sys.path.remove(path)
        self.assertEqual(self.seen, [fresh_seven, fresh_eight])
        self.assertEqual(type(fresh_seven.__loader__).__name__, 'zipimporter')

    def test_a_finder_that_another_tracer_put_first(self):
        if sys.version_info[0] == 2:
            return
        import importlib.util
        self.module('fresh_nine')
        outer = []

        class Other(object):
            busy = False

            def find_spec(self, name, path=None, target=None):
                if name != 'fresh_nine' or self.busy:
                    return None
                self.busy = True
                try:
                    outer.append(name)
                    return importlib.util.find_spec(name)
                finally:
                    self.busy = False
        for index in (0, len(sys.meta_path)):
            sys.modules.pop('fresh_nine', None)
            finder = Other()
            sys.meta_path.insert(index, finder)
            try:
                import fresh_nine
            finally:
                sys.meta_path.remove(finder)
            self.assertIs(self.seen[-1], fresh_nine)
        self.assertEqual(len(self.seen), 2)

    def test_threads_that_import_at_once(self):
        import threading
        self.module('fresh_ten', 'import time\ntime.sleep(0.05)\nVALUE = 10')
        values = []
        threads = [threading.Thread(target=lambda: values.append(__import__('fresh_ten').VALUE)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(values, [10] * 5)
        self.assertEqual(len(self.seen), 1)


class Wrapping(unittest.TestCase):
    def test_looks_kinds_and_idempotence(self):
        class Owner(object):
            def method(self, a, b=2):
                """Docs."""
                return self, a, b

            @staticmethod
            def static(a):
                return a

            @classmethod
            def klass(cls, a):
                return cls, a
        calls = []

        def make(original):
            def wrapper(*args, **kwargs):
                calls.append(original.__name__)
                return original(*args, **kwargs)
            return wrapper
        original = Owner.__dict__['method']
        for name in ('method', 'static', 'klass', 'missing'):
            hooks.wrap(Owner, name, make)
            hooks.wrap(Owner, name, make)
        owner = Owner()
        self.assertEqual(owner.method(1), (owner, 1, 2))
        self.assertEqual((owner.static(5), Owner.static(5)), (5, 5))
        self.assertEqual((owner.klass(6), Owner.klass(6)), ((Owner, 6), (Owner, 6)))
        self.assertEqual(calls, ['method', 'static', 'static', 'klass', 'klass'])
        self.assertEqual((Owner.method.__name__, Owner.method.__doc__), ('method', 'Docs.'))
        self.assertIs(Owner.__dict__['method'].__wrapped__, original)
        self.assertFalse(hasattr(Owner, 'missing'))

    def test_a_hook_that_keeps_failing_takes_itself_off(self):
        class Owner(object):
            def method(self):
                return 5
        original = Owner.__dict__['method']
        hooks.wrap(Owner, 'method', lambda method: lambda self: method(self))
        file, owner, name, found, placed = hooks._hooks[-1]
        hooks._hooks[-1] = ('instrument/failing.py', owner, name, found, placed)
        for _ in range(guard.MAX_FAILURES):
            guard.failures['instrument/failing.py'] = guard.failures.get('instrument/failing.py', 0) + 1
        guard.on_too_many('instrument/failing.py')
        self.assertIs(Owner.__dict__['method'], original)
        guard.failures.clear()


if __name__ == '__main__':
    unittest.main()
