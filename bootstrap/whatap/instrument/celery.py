"""Celery: each run of a task is a transaction, begun and ended by the worker's own signals, whatever its pool is made of.

A task that is called directly, or applied eagerly inside a request, belongs to what calls it.
"""
from ..guard import guarded
from ..tx import TASK, begin

RUN = '_whatap'


def instrument(module):
    """`celery.app.trace`, which every worker imports and no program that only sends tasks."""
    signals = module.signals
    signals.task_prerun.connect(begun, weak=False)
    signals.task_failure.connect(failed, weak=False)
    signals.task_postrun.connect(ended, weak=False)


@guarded
def begun(task=None, **_):
    tx = begin(None, task.name, kind=TASK)
    if tx is not None:
        setattr(task.request, RUN, tx)


@guarded
def failed(sender=None, exception=None, traceback=None, **_):
    tx = getattr(sender.request, RUN, None)
    if tx is not None:
        tx.fail(type(exception), exception, traceback)


@guarded
def ended(task=None, **_):
    tx = task.request.__dict__.pop(RUN, None)
    if tx is not None:
        tx.end()
