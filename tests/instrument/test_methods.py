"""Functions that the options name."""
import inspect
import pickle
import sys
import unittest

import sink

sink.start(hook_method_patterns=('sample_methods:plain', 'sample_methods:failing', 'sample_methods:numbers', 'sample_methods:Shop.*', 'sample_methods:Sub.order',
                                 'sample_methods:nothing', 'sample_methods:Nothing.*', 'sample_async:*', 'no_such_module:f', 'rubbish', ''),
           hook_service_patterns=('sample_methods:job', 'sample_async:service'))

import sample_methods  # noqa: E402


class Methods(sink.Traced):
    def names(self):
        return [(step['a'], step['parent'], step['failed']) for step in self.steps('method')]

    def test_functions(self):
        with self.transaction():
            self.assertEqual(sample_methods.plain(1, b=4), 5)
            with self.assertRaises(KeyError):
                sample_methods.failing()
        self.assertEqual(self.names(), [('sample_methods:plain', 0, False), ('sample_methods:failing', 0, True)])

    def test_methods_of_all_kinds(self):
        with self.transaction():
            self.assertEqual(sample_methods.Shop().order(3), 7)
            self.assertEqual(sample_methods.Shop.price(3), 6)
            self.assertEqual(sample_methods.Shop().price(3), 6)
            self.assertEqual(sample_methods.Sub.name(), 'Sub')
            self.assertEqual(sample_methods.Sub().name(), 'Sub')
            self.assertEqual(sample_methods.Sub().order(3), 70)
            self.assertEqual(len(sample_methods.Shop()), 5)
        self.assertEqual(self.names(), [
            ('sample_methods:Shop.order', 0, False), ('sample_methods:Shop.price', 1, False), ('sample_methods:Shop.price', 0, False),
            ('sample_methods:Shop.price', 0, False), ('sample_methods:Shop.name', 0, False), ('sample_methods:Shop.name', 0, False),
            ('sample_methods:Sub.order', 0, False), ('sample_methods:Shop.order', 7, False), ('sample_methods:Shop.price', 8, False)])

    def test_generators(self):
        with self.transaction():
            values = sample_methods.numbers(3)
            self.assertEqual(next(values), 0)
            self.assertEqual(values.send('x'), 1)
            self.assertEqual(list(values), [2])
            early = sample_methods.numbers(3)
            next(early)
            early.close()
            broken = sample_methods.numbers(3)
            next(broken)
            with self.assertRaises(ZeroDivisionError):
                broken.throw(ZeroDivisionError())
            sample_methods.plain(1)
        names = self.names()
        self.assertEqual(names[-1], ('sample_methods:plain', 0, False))
        if sys.version_info[0] > 2:  # 2.7 leaves generators alone
            self.assertEqual(names[:-1], [('sample_methods:numbers', 0, False)] * 2 + [('sample_methods:numbers', 0, True)])
        self.assertTrue(inspect.isgeneratorfunction(sample_methods.numbers))

    def test_looks(self):
        self.assertEqual((sample_methods.plain.__name__, sample_methods.plain.__module__, sample_methods.plain.__doc__), ('plain', 'sample_methods', 'Adds.'))
        self.assertIs(pickle.loads(pickle.dumps(sample_methods.plain)), sample_methods.plain)
        self.assertIsInstance(sample_methods.Shop.__dict__['price'], staticmethod)
        self.assertIsInstance(sample_methods.Shop.__dict__['name'], classmethod)
        self.assertEqual(sample_methods.Shop.value, 7)
        if sys.version_info[0] > 2:
            self.assertEqual(str(inspect.signature(sample_methods.plain)), '(a, b=2)')
            self.assertEqual(sample_methods.Shop.order.__qualname__, 'Shop.order')

    def test_outside_a_transaction(self):
        self.assertEqual(sample_methods.plain(1), 3)
        self.assertEqual(sink.take(), [])

    def test_services(self):
        self.assertEqual(sample_methods.job(False), 0)
        with self.assertRaises(ValueError):
            sample_methods.job(True)
        good, bad = sink.take()
        self.assertEqual((good['name'], good['method'], good['status'], good['type'], good['flags'] & 1), ('sample_methods:job', '', 0, 2, 0))
        self.assertEqual([step['a'] for step in good['steps']], ['sample_methods:plain'])
        self.assertEqual((bad['error_class'], bad['error_message'], bad['flags'] & 1), ('ValueError', 'job failed', 1))
        self.assertIn('raise ValueError', bad['error_stack'])

    def test_service_inside_a_transaction_is_a_step(self):
        with self.transaction():
            sample_methods.job(False)
        self.assertEqual(self.names(), [('sample_methods:job', 0, False), ('sample_methods:plain', 1, False)])


if __name__ == '__main__':
    unittest.main()
