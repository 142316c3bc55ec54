"""This interpreter's ring in shared memory: docs/protocol.md, sections 2 and 3.

A finished transaction is put into a bounded queue and from there into the ring, by whoever gets the right to
drain. Every step can be taken up again by anybody: a signal handler may raise between any two of our
instructions, and another thread or greenlet may run there.
"""
import posix
import sys

from . import _launch, _native, guard, wire
from ._compat import clock, count, deque, get_ident, map, next_of, repeat, wall, zip
from ._compat import Struct, counter, fork_page, words_of

MAX_QUEUE_BYTES = 512 * 1024
MAX_DRAIN_BYTES = 64 * 1024
SECOND = 1000000000

# Words of the header, by index of their eight bytes.
TAIL, HEARTBEAT, CONTROL = 8, 9, 12
HEAD, ENDED, PUT = 16, 24, 25
LOST_QUEUE_FULL, LOST_TOO_BIG, LOST_ENCODE, LOST_FORK, LOST_EXIT = range(26, 31)
STEPS_CUT, BEGUN, FAILURES = 34, 35, 36

HEADER_BYTES = 512
SLOTS_AT, SLOT_BYTES, SLOTS = 12288, 192, 256
STACK_WANTED_AT = 512
TRACING_ON = 1 << 32
LEAVING = 2 << 32


class Ring(object):
    """One interpreter's counters, queue and, once attached, mapping. A forked child makes a new one."""

    __slots__ = (
        'alive', 'memory', 'words', 'words32', 'control', 'attached', 'id', 'data_at', 'data_bytes', 'mask', 'half',
        'head', 'put', 'tail', 'pending', 'queue', 'commit', 'queued', 'counted_at', 'owner', 'generation',
        'published', 'begun', 'lost_queue_full', 'lost_too_big', 'lost_encode', 'steps_cut', 'failures',
        'free', 'versions', 'rebuilt', 'anchor', 'offset', 'earlier', 'beat', 'beat_at', 'belled', 'link', 'first',
        'on', 'pid')

    def __init__(self):
        self.alive = fork_page()
        self.pid = posix.getpid()
        self.queue = deque()
        self.commit = self.queue.extend
        self.queued = 0
        self.counted_at = 0
        self.owner = {}
        self.generation = 0
        self.pending = None
        self.attached = False
        self.id = 0
        self.data_at = self.data_bytes = self.mask = self.half = 0
        self.head = self.put = self.tail = 0
        self.free = []
        self.versions = [0] * SLOTS
        self.rebuilt = 0
        self.anchor = self.offset = 0
        self.earlier = None
        self.beat = self.beat_at = self.belled = 0
        self.link = None
        self.first = True
        self.on = True
        self.use(bytearray(HEADER_BYTES))
        self.control = -1

    def use(self, memory):
        """Counts in this memory from now on, carrying on from the numbers so far."""
        words, words32 = words_of(memory)
        starts = {}
        for index in _COUNTERS:
            starts[index] = self.words[index] if self.memory_known() else 0
            words[index] = starts[index]
        if self.memory_known():
            # A thread may be about to count in the old place: see `settle`.
            self.earlier = (self.words, starts, clock() + 10 * SECOND)
        self.memory = memory
        self.words32 = words32
        self.words = words
        self.published = counter(memory, words, ENDED, starts[ENDED])
        self.begun = next_of(counter(memory, words, BEGUN, starts[BEGUN]))
        self.lost_queue_full = counter(memory, words, LOST_QUEUE_FULL, starts[LOST_QUEUE_FULL])
        self.lost_too_big = counter(memory, words, LOST_TOO_BIG, starts[LOST_TOO_BIG])
        self.lost_encode = counter(memory, words, LOST_ENCODE, starts[LOST_ENCODE])
        self.steps_cut = next_of(counter(memory, words, STEPS_CUT, starts[STEPS_CUT]))
        self.failures = next_of(counter(memory, words, FAILURES, starts[FAILURES]))

    def memory_known(self):
        try:
            return self.words is not None
        except AttributeError:
            return False

    def settle(self):
        """Carries over what a thread counted in the old place after the numbers had been taken along."""
        earlier = self.earlier
        if earlier is None:
            return
        words, starts, until = earlier
        for index, name in _COUNTERS.items():
            late = words[index] - starts[index]
            starts[index] += late
            while late > 0:
                late -= 1
                step = getattr(self, name)
                step() if name in ('begun', 'steps_cut', 'failures') else next(step)
        if clock() > until:
            self.earlier = None

    # -- transactions

    def renew(self, now):
        """Takes the wall clock again, and once a second looks after the collector."""
        self.anchor = now
        self.offset = (wall() - now) // 1000

    def attend(self):
        """The control word is not the known one. Whether to trace."""
        return self.on

    def end(self, body):
        """Counts an ended transaction and queues its frame, in one step that nothing can come between."""
        size = len(body[0])
        queued = self.queued + size
        if queued > MAX_QUEUE_BYTES and self.full(size):
            next(zip(self.published, self.lost_queue_full))
            return
        self.queued = queued
        self.commit(zip((body,), self.published))

    def full(self, size):
        """Whether the queue has no room. The sum of sizes drifts when threads add at once: count again."""
        now = clock()
        if now - self.counted_at > SECOND or now < self.counted_at:
            self.counted_at = now
            self.queued = sum([len(item[0][0]) for item in list(self.queue)])
        return self.queued + size > MAX_QUEUE_BYTES

    def drain(self):
        """Moves frames from the queue into the ring: at most MAX_DRAIN_BYTES, never waiting for anybody."""
        return None


_COUNTERS = {
    ENDED: 'published', BEGUN: 'begun', LOST_QUEUE_FULL: 'lost_queue_full', LOST_TOO_BIG: 'lost_too_big',
    LOST_ENCODE: 'lost_encode', STEPS_CUT: 'steps_cut', FAILURES: 'failures',
}
