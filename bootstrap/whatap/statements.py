"""SQL steps for drivers whose C code takes no time worth a step object: recorded when they end, from parts made once for each
statement.
"""
import sys

from . import encode, errors, guard, policy, wire
from ._compat import Struct, clock, text as text_type
from .tx import IDLE, LIVE, SQL, context, keep, take_stack

# Only transactions that have been running for a while are asked for their stack.
STACKS_FROM = 100 * 1000000
MAX_STATEMENT = 4000
MAX_STATEMENTS = 500
MAX_DATABASES = 100
_databases = {}
_TEXTS = (str, text_type)
_get = context.get
_EMPTY = wire.EMPTY
_leaf_times = Struct('<IIi').pack
_leaf_state = Struct('<2sHI72s').pack
_shown = Struct('<BB').pack


class Statements(dict):
    """What is the same in all steps with one statement of one database, made once: `statements[text]`.

    The step's first eight bytes; the rest of it from the repetitions on; state and length for the slot; its text there.
    """

    __slots__ = ('tail', 'target')

    def __init__(self, system, target):
        self.target = target
        self.tail = wire.text(system) + wire.text(target)

    def __missing__(self, statement):
        text = wire.text(statement)
        tail = text + self.tail + _EMPTY
        shown = text[2:74]
        made = wire.step_front(len(tail), SQL), wire.ONCE + tail, _shown(2, len(shown)), shown
        if len(text) <= MAX_STATEMENT and type(statement) is str:
            if len(self) >= MAX_STATEMENTS:
                self.clear()
            self[statement] = made
        return made


def statements_of(system, target):
    """The statements of a database, shared by all connections to it."""
    key = system, target
    found = _databases.get(key)
    if found is None:
        found = Statements(system, target)
        if len(_databases) < MAX_DATABASES:
            _databases[key] = found
    return found


def traced_execute(original):
    """For sqlite3's cursors, whose C code takes no time worth a step object: the method `(self, statement, ...)` with
    a step around it, which is recorded when it ends. The statements are those of `cursor.connection._whatap`."""
    def execute(self, *args):
        tx = _get()
        if tx is None or tx.state != LIVE:
            return original(self, *args)
        try:
            statement = args[0]
            front, back, state, text = self.connection._whatap[
                statement if type(statement) is str else _plain_text(statement)]
            started = clock()
            after = started - tx.start
            slot = tx.slot
            if slot is not None:
                slot.doing[:] = _leaf_state(state, 0, after // 1000000, text)
                if after > STACKS_FROM and tx.ring.memory[slot.wanted_at] != IDLE:
                    take_stack(tx)
        except BaseException:
            _unusual_execute()
            return original(self, *args)
        try:
            result = original(self, *args)
        except BaseException:
            _leaf(tx, back, after, started, -1, wire.STEP_FAILED, sys.exc_info()[1])
            raise
        try:
            steps = tx.steps
            if tx.open or tx.state != LIVE or len(steps) >= policy.max_steps:
                _leaf(tx, back, after, started, self.rowcount, 0, None)
            else:
                steps.append(front + _leaf_times(after // 1000, (clock() - started) // 1000, self.rowcount) + back)
                if slot is not None:
                    slot.doing[0] = IDLE
        except BaseException:
            if not guard.ours():
                raise
        return result
    return execute


def _leaf(tx, back, after, started, value, flags, error):
    """The end of a step that failed, lies below another one, or comes too late."""
    try:
        if tx.slot is not None:
            tx.slot.doing[0] = IDLE
        tail = back[12:]
        if error is not None:
            tail = tail[:-2] + wire.encode(errors.short(error))
        keep(tx, wire.step(SQL, flags, tx.open, encode.micros(after), encode.micros(clock() - started), encode.number(value), 1, 0, tail))
    except BaseException:
        if not guard.ours():
            raise


def _plain_text(value):
    return value if type(value) in _TEXTS else None


def _unusual_execute():
    """Inside an except block. A cursor that was never initialised, a call without a statement: the library will say so."""
    kind = sys.exc_info()[0]
    if not issubclass(kind, (AttributeError, IndexError)) and kind.__module__ != 'sqlite3' and not guard.ours():
        raise
