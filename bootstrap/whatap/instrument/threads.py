"""`threading`: a thread works for the transaction that started it, as long as that runs.

Only `Thread` itself is touched, and nothing of a subclass. A worker of a pool lives longer than the request that happened to
start it: it gets its transaction with each piece of work (`futures.py`), not from its start.
"""
from ..guard import guarded
from ..hooks import wrap
from ..tx import activate, capture, deactivate

CARRIED = '_whatap_carried'
POOLS = ('concurrent.futures.thread', 'multiprocessing.pool')


def instrument(module):
    thread = module.Thread
    inner = '_bootstrap_inner' if hasattr(thread, '_bootstrap_inner') else '_Thread__bootstrap_inner'
    if hasattr(thread, inner):
        wrap(thread, 'start', traced_start)
        wrap(thread, inner, traced_bootstrap)


def traced_start(start):
    def wrapper(self, *args, **kwargs):
        carry(self)
        try:
            return start(self, *args, **kwargs)
        except BaseException:
            self.__dict__.pop(CARRIED, None)
            raise
    return wrapper


def traced_bootstrap(bootstrap):
    def wrapper(self, *args, **kwargs):
        tx = self.__dict__.pop(CARRIED, None)
        if tx is None:
            return bootstrap(self, *args, **kwargs)
        token = activate(tx)
        try:
            return bootstrap(self, *args, **kwargs)
        finally:
            deactivate(token)
    return wrapper


@guarded
def carry(thread):
    tx = capture()
    if tx is None:
        return
    state = thread.__dict__
    target = state.get('_target', state.get('_Thread__target'))
    if getattr(target, '__module__', None) not in POOLS:
        state[CARRIED] = tx
