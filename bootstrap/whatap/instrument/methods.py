"""Functions that the options name: `hook_method_patterns` makes them steps, `hook_service_patterns` and
`standalone_transaction_patterns` transactions.

    module:function   module:Class.method   module:Class.*   module:*.method   module:*.*   module:*

A `*` stands for what the module or class itself defines, without names that begin with two underscores.
"""
import sys

from ..guard import guarded
from ..hooks import patterns, wrap
from ..tx import FUNCTION, begin, current

MAX_FUNCTIONS = 1000

_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200
_function = type(lambda: None)
_hooked = set()


def instrument(module):
    for kind, make in (('service', service), ('method', method)):
        for name, target in patterns(kind):
            if name == module.__name__:
                for owner, key in targets(module, target):
                    hook(module, owner, key, make)


def targets(module, target):
    """(owner, name) of every function that the pattern names."""
    if '.' not in target:
        return [(module, name) for name in names(module, target, module)]
    owner, _, name = target.rpartition('.')
    found = []
    for holder in holders(module, owner):
        found.extend((holder, key) for key in names(holder, name, None))
    return found


def holders(module, path):
    if path == '*':
        return [value for value in list(module.__dict__.values())
                if isinstance(value, type) and value.__module__ == module.__name__]
    owner = module
    for part in path.split('.'):
        owner = owner.__dict__.get(part)
        if not hasattr(owner, '__dict__'):
            return []
    return [owner]


def names(owner, name, module):
    if name != '*':
        return [name] if name in owner.__dict__ else []
    return [key for key, value in list(owner.__dict__.items())
            if not key.startswith('__') and function_of(value) is not None
            and (module is None or function_of(value).__module__ == module.__name__)]


def function_of(value):
    """The function behind a member of a class, or None."""
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__ if hasattr(value, '__func__') else value.__get__(None, object)
        value = getattr(value, '__func__', value)
    return value if isinstance(value, _function) else None


@guarded
def hook(module, owner, key, make):
    member = owner.__dict__[key]
    label = module.__name__ + ':' + (key if owner is module else owner.__name__ + '.' + key)
    if label in _hooked or len(_hooked) >= MAX_FUNCTIONS or function_of(member) is None:
        return
    _hooked.add(label)
    wrap(owner, key, lambda function: make(function, label))


def method(function, label):
    """`function` as a step of the transaction that calls it."""
    kind = function.__code__.co_flags if hasattr(function, '__code__') else 0
    if kind & _ASYNC_GENERATOR:
        from ._methods_asyncgen import traced_async_generator
        return traced_async_generator(function, label)
    if kind & _COROUTINE:
        from ._methods_async import traced_coroutine
        return traced_coroutine(function, label)
    if kind & _GENERATOR:
        return generator(function, label)

    def wrapper(*args, **kwargs):
        tx = current()
        if tx is None:
            return function(*args, **kwargs)
        step = tx.call(label)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            step.end(0, error)
            raise
        step.end()
        return result
    return wrapper


def generator(function, label):
    """A generator's step lasts from its first value to its end. Python 2.7 cannot delegate to a generator: left alone."""
    try:
        from ._methods_generator import traced_generator
    except SyntaxError:
        return function
    return traced_generator(function, label)


def service(function, label):
    """`function` as a transaction; inside another one it is a step."""
    kind = function.__code__.co_flags if hasattr(function, '__code__') else 0
    if kind & _COROUTINE:
        from ._methods_async import service_coroutine
        return service_coroutine(function, label)
    if kind & (_GENERATOR | _ASYNC_GENERATOR):
        return method(function, label)  # who consumes it decides how long it lasts
    as_step = method(function, label)

    def wrapper(*args, **kwargs):
        tx = begin(None, label, kind=FUNCTION)
        if tx is None:
            return as_step(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            tx.fail(type(error), error, sys.exc_info()[2])
            tx.end()
            raise
        tx.end()
        return result
    return wrapper
