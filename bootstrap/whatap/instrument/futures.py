"""`concurrent.futures.ThreadPoolExecutor`: a piece of work belongs to the transaction that submitted it. asyncio's `run_in_executor` comes here too."""
from ..hooks import wrap
from ..tx import capture, run_with

# Its work goes to other interpreters by way of pickle (Python 3.14).
INTERPRETERS = 'concurrent.futures.interpreter'


def instrument(module):
    wrap(module.ThreadPoolExecutor, 'submit', traced_submit)


def traced_submit(submit):
    def wrapper(*args, **kwargs):
        # (self, function, ...): all positional, so that any keyword remains the function's.
        tx = capture() if len(args) > 1 else None
        if tx is None or any([base.__module__ == INTERPRETERS for base in type(args[0]).__mro__]):
            return submit(*args, **kwargs)
        return submit(args[0], run_with, tx, args[1], args[2:], kwargs)
    return wrapper
