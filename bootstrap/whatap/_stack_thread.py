"""The option active_stack_thread: a thread that takes the stacks of transactions stuck inside one call.

Without it a stack is taken by the transaction's next step, which one that waits for a lock never makes. The thread is started
when this process has got its ring, hence in its first transaction, and never before a fork. It ends with its process.
"""
import sys

from . import errors, guard, ring as rings, tx as transactions
from ._compat import Struct, pause, start_thread

PERIOD = 0.5

_slot_front = Struct('<IIQQQ').unpack  # version; length of the name; id; wall time; thread
_NOTHING = b'\0' * rings.SLOTS


def start(ring):
    """Once for each process."""
    if start_thread is not None:
        start_thread(_watch, (ring,))


def _watch(ring):
    before = {}
    while True:
        pause(PERIOD)
        try:
            if ring is not transactions._ring or not ring.alive[0]:
                return
            before = _look(ring, before)
        except BaseException:
            # Nobody could do anything with it, and it must not be written to the program's stderr.
            if not guard.ours():
                return


def _look(ring, before):
    """Takes the stacks that are still wanted since the last look: steps come first. What is wanted now, by slot."""
    at = rings.STACK_WANTED_AT
    wanted = bytes(ring.memory[at:at + len(ring.slots)])
    if wanted == _NOTHING:
        return {}
    now = {}
    for number in range(len(wanted)):
        if wanted[number:number + 1] != b'\0':
            slot = ring.slots[number]
            version, _, identity, _, thread = _slot_front(bytes(slot.front[0:32]))
            if version & 1:
                now[number] = asked = ring.memory[slot.wanted_at], identity
                if before.get(number) == asked:
                    _take(asked, thread)
    return now


def _take(asked, thread):
    number, identity = asked
    frame = sys._current_frames().get(thread)
    tx = _transaction(frame, identity)
    if tx is None or tx.stacked == number:
        return
    stack = errors.stack_of(frame)
    # Its source lines may have been read from files meanwhile: it must not have moved on into our own code.
    frame = sys._current_frames().get(thread)
    if frame is None or frame.f_code.co_filename.startswith(guard.HERE) or tx.state != transactions.LIVE:
        return
    transactions.add_stack(tx, number, stack)


def _transaction(frame, identity):
    """The transaction that one of our functions on this stack works for."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(guard.HERE):
            tx = frame.f_locals.get('tx')
            if type(tx) is transactions.Transaction and tx.id == identity and tx.state == transactions.LIVE:
                return tx
        frame = frame.f_back
    return None
