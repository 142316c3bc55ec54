"""This interpreter's ring in shared memory: docs/protocol.md, sections 2 and 3.

A finished transaction is put into a bounded queue and from there into the ring, by whoever gets the right to
drain. Every step can be taken up again by anybody: a signal handler may raise between any two of our
instructions, and another thread or greenlet may run there.
"""
import posix
import sys

from . import _launch, guard
from ._compat import clock, counter, deque, fork_page, get_ident, next_of, part_of, pause, wall, words_of, zip
from ._compat import crc32
from .wire import GAPS as _GAPS, pack_place as _place, pack_word as _word, sealed

_NOTHING = (None,)

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

FIRST_WAIT = 0.02
EXIT_WAIT = 200 * 1000000
BELL_PAUSE = 20 * 1000000
HEARTBEAT_OLD = 2 * SECOND


class Slot(object):
    """Where a running transaction is shown. The first word is odd while it runs."""

    __slots__ = ('version', 'wanted_at', 'shown', 'front', 'whole', 'doing')

    def __init__(self, memory, at, wanted_at):
        self.shown = words_of(part_of(memory, at, at + 8))[1]
        self.front = part_of(memory, at, at + 112)
        self.whole = part_of(memory, at, at + 120)
        self.doing = part_of(memory, at + 112, at + 192)
        self.version = -1
        self.wanted_at = wanted_at


class Ring(object):
    """One interpreter's counters, queue and, once attached, mapping. A forked child makes a new one."""

    __slots__ = (
        'alive', 'memory', 'words', 'words32', 'control', 'mapping', 'id', 'place', 'data_bytes', 'half', 'alarm',
        'tail', 'pending', 'queue', 'queued', 'counted_at', 'right', 'successors', 'handed', 'published', 'begun',
        'lost_queue_full', 'lost_too_big', 'lost_encode', 'steps_cut', 'failures', 'free', 'slots', 'looked_at',
        'renew_at', 'offset', 'earlier', 'beat', 'beat_at', 'belled', 'link', 'first', 'options_seen', 'noted')

    def __init__(self):
        self.alive = fork_page()
        self.queue = deque()
        self.queued = self.counted_at = 0
        # Who drains stands in here under 0, and nobody else may. See `_is_busy` for one who was thrown out in between.
        self.right = {}
        self.successors = {}
        self.handed = 0
        self.pending = self.mapping = self.earlier = self.link = self.words = self.place = None
        self.id = self.data_bytes = self.half = self.alarm = self.tail = 0
        self.free = []
        self.slots = ()
        self.looked_at = self.renew_at = self.offset = self.beat = self.beat_at = self.belled = 0
        self.first = True
        self.options_seen = self.noted = 0
        self._count_in(bytearray(HEADER_BYTES), {})
        self.control = -1

    # -- for transactions

    def attend(self):
        """The control word is not the known one: not attached yet, or told something. Whether to trace."""
        if self.mapping is None:
            if _launch.launch is None:
                return _launch.installed
            # The very first request of a process is the one that hangs after a bad deployment: it is worth a moment to have
            # its slot from the start. The collector needs a fraction of a millisecond, but may have to wait for a processor.
            self._look_for_collector(FIRST_WAIT if self.link is None else 0)
            if self.mapping is None:
                return True
        word = self.words[CONTROL]
        version = word & 0xffffffff
        if version != self.options_seen and not version & 1:
            self._read_options(version)
        if not word & TRACING_ON:
            return False
        if version == self.options_seen:
            self.control = word
        return True

    def renew(self, now):
        """Takes the wall clock again; so about once a second looks after the collector, too."""
        self.renew_at = now + SECOND
        self.offset = (wall() - now) // 1000
        if len(guard.first_faults) != self.noted or self.link is not None and self.link.refusal is not None:
            self._note()
        if self.mapping is not None:
            self._listen(now)
            if self.earlier is not None:
                self._settle()
            if now - self.looked_at > 60 * SECOND:
                self._look_after_slots(now)

    def _note(self):
        """Faults and refusals go into a file, each once."""
        from . import _log
        self.noted = len(guard.first_faults)
        _log.faults(guard.first_faults)
        if self.link is not None and self.link.refusal is not None:
            _log.note('the collector gives no ring: ' + self.link.refusal)
            self.link.refusal = None

    def put(self, tx, body):
        """Counts an ended transaction and queues its frame, or counts it as lost when the queue is full."""
        queue = self.queue
        if queue and self.is_full(len(body[0])):
            next(zip(self.published, self.lost_queue_full))
        else:
            queue.extend(zip((body,), self.published))
        tx.state = 2
        self.drain()

    def move(self, queue, body, place):
        """What `drain` does when there is but this frame: nothing is read twice, and nothing is looked at that needs
        looking at only then. An exception in here leaves the right to drain behind: see `_is_busy`."""
        right = self.right
        if right.setdefault(0, body) is not body:
            self.drain(3)
            return
        item = queue[0] if queue else _NOTHING
        if item[0] is body and place is self.place:
            memory, words, mask, ring, data_at = place
            head = words[16]
            put = words[25] + 1
            # As `wire.sealed`, without the call.
            frame = _place(body[1], ring, put) + body[0]
            size = len(frame) + 8
            frame = _word(size | crc32(frame, crc32(_word(head))) << 32) + frame + _GAPS[size & 7]
            size = len(frame)
            behind = head + size
            at = head & mask
            if behind <= self.alarm and at + size <= mask:
                at += data_at
                memory[at:at + size] = frame
                self.pending = item, behind, put
                words[16] = behind
                words[25] = put
                queue.popleft()
        del right[0]
        if queue:
            self.drain()

    def holds(self, body):
        """Whether that frame is in the queue."""
        return any([item[0] is body for item in list(self.queue)])

    def drain(self, callers=2):
        """Moves frames from the queue into the ring: at most MAX_DRAIN_BYTES, never waiting for anybody."""
        queue = self.queue
        if self.mapping is None:
            self._go_without()
        me = []
        while queue and self.mapping is not None:
            right = self.right
            holder = right.setdefault(0, me)
            if holder is not me:
                if self._is_busy(right, holder, callers):
                    return
                continue
            try:
                if self.pending is not None:
                    self._finish()
                memory, words, mask, ring, data_at = self.place
                budget = MAX_DRAIN_BYTES
                while queue:
                    item = queue[0]
                    body, front = item[0]
                    head = words[16]
                    put = words[25] + 1
                    frame = sealed(body, front, ring, put, head)
                    size = len(frame)
                    behind = head + size
                    if behind > self.alarm and not self._has_room(behind):
                        return
                    at = head & mask
                    if at + size > mask:
                        room = mask + 1 - at
                        memory[data_at:data_at + size - room] = frame[room:]
                        frame = frame[:room]
                        size = room
                    at += data_at
                    memory[at:at + size] = frame
                    self.pending = item, behind, put
                    words[16] = behind
                    words[25] = put
                    queue.popleft()
                    self.pending = None
                    if self.queued:
                        self.queued -= len(body)
                        budget -= len(body)
                        if budget < 0:
                            return
                self.queued = 0
            finally:
                del right[0]
            # Whoever came meanwhile found us draining and left: look again.

    # -- the ring

    def _has_room(self, behind):
        """The ring is more than half full as far as we know: looks again, wakes the collector."""
        self.tail = tail = self.words[TAIL]
        self.alarm = tail + self.half
        if behind > self.alarm:
            self._ring_bell()
        return behind - tail <= self.data_bytes

    def _finish(self):
        """Somebody was thrown out between writing this frame and taking it off the queue."""
        item, head, put = self.pending
        queue = self.queue
        if queue and queue[0] is item:
            self.words[HEAD] = head
            self.words[PUT] = put
            queue.popleft()
        self.pending = None

    def _is_busy(self, right, holder, callers=2):
        """Whether `holder` may still be draining, apart from the calling functions of ours. If nobody runs our code, and the
        right is still his afterwards, he was thrown out by an exception between two instructions of ours: then everybody
        who notices goes on with the same new right. Nobody ever gets the old one, since nobody gives it back."""
        here = get_ident()
        for ident, frame in sys._current_frames().items():
            if ident == here:
                frame = sys._getframe(callers)
            while frame is not None:
                if frame.f_code in _DRAINING:
                    return True
                frame = frame.f_back
        if right.get(0) is holder:
            # The old one is kept, so that no other gets its place in the table.
            self.right = self.successors.setdefault(id(right), ({}, right))[0]
        return False

    def is_full(self, size):
        """Whether the queue, which holds something, has no room. The sum drifts when threads add at once, hence it is
        taken again now and then. Counts the frame in otherwise."""
        now = clock()
        if self.queued <= 0 or not 0 <= now - self.counted_at <= SECOND:
            self.counted_at = now
            self.queued = sum([len(item[0][0]) for item in list(self.queue)])
        if self.queued + size > MAX_QUEUE_BYTES:
            return True
        self.queued += size
        return False

    def _count_in(self, memory, starts):
        """Counts in this memory from now on, from these numbers."""
        words, words32 = words_of(memory)
        for index in _COUNTERS:
            words[index] = starts.get(index, 0)
        self.memory = memory
        self.words32 = words32
        self.words = words
        make = lambda index: counter(memory, words, index, starts.get(index, 0))  # noqa: E731
        self.published = make(ENDED)
        self.begun = next_of(make(BEGUN))
        self.lost_queue_full = make(LOST_QUEUE_FULL)
        self.lost_too_big = make(LOST_TOO_BIG)
        self.lost_encode = make(LOST_ENCODE)
        self.steps_cut = next_of(make(STEPS_CUT))
        self.failures = next_of(make(FAILURES))

    def _settle(self):
        """Carries over what a thread was about to count in the old place while the numbers were taken along."""
        words, starts, until = self.earlier
        for index, name in _COUNTERS.items():
            for _ in range(words[index] - starts[index]):
                starts[index] += 1
                step = getattr(self, name)
                if name in ('begun', 'steps_cut', 'failures'):
                    step()
                else:
                    next(step)
        if clock() > until:
            self.earlier = None

    def _look_after_slots(self, now):
        """Once a minute. Slots get lost when an exception comes between taking and using one: collects them again.
        Versions have 32 bits: begins again with those that run out of them."""
        self.looked_at = now
        if not self.free:
            self.free = [slot for slot in self.slots if not slot.shown[0] & 1]
        for slot in list(self.free):
            if slot.version > 0xf0000000:
                slot.version = -1

    # -- the collector

    def _look_for_collector(self, wait):
        """One step of attaching, by whoever has the right to drain: nothing moves while the ring changes."""
        right, me = self.right, []
        holder = right.setdefault(0, me)
        if holder is not me:
            self._is_busy(right, holder)
            return
        try:
            link = self.link
            if link is None:
                from . import attach
                link = self.link = attach.Link()
            if not link.waiting:
                link.connect(self, self.mapping)
            if link.waiting:
                mapping = link.answer(wait)
                if mapping is not None and (self.mapping is None or mapping.id != self.id):
                    self._attach(mapping)
        finally:
            del right[0]

    def _attach(self, mapping):
        """Goes on in this mapping."""
        again = self.mapping is not None
        self.mapping = None
        old = self.words
        seen = dict([(index, old[index]) for index in _COUNTERS])
        starts = dict(seen)
        starts[ENDED] -= self.handed
        if again:
            # A ring of its own has an account of its own: what still waits belongs to it.
            starts = {ENDED: len(self.queue)}
        self._count_in(mapping.memory, starts)
        self.earlier = None if again else (old, seen, clock() + 10 * SECOND)
        self.pending = None
        self.id = mapping.id
        self.data_bytes = mapping.data_bytes
        self.place = self.memory, self.words, mapping.data_bytes - 1, mapping.id, mapping.data_at
        self.half = mapping.data_bytes // 2
        self.tail = self.words[TAIL]
        self.alarm = self.tail + self.half
        self.beat_at = 0
        self.options_seen = 0
        self.control = -1
        self.slots = [Slot(mapping.memory, mapping.slots_at + number * SLOT_BYTES, STACK_WANTED_AT + number)
                      for number in range(mapping.slots)]
        self.free = self.slots[::-1]
        self.mapping = mapping
        _launch.detail('attached to ring %016x' % mapping.id)
        if _launch.options['active_stack_thread'] and not again:
            from . import _stack_thread
            _stack_thread.start(self)

    def _go_without(self):
        """No ring yet. A short-lived child may have no other transaction, and an idle process may end no other for long, hence
        what there is goes as it is."""
        link = self.link
        if link is None:
            return
        if self.first:
            self.first = False
            if not link.waiting and link.refusal is None:
                # Too many were before us at the begin, perhaps.
                link.next_try = 0
        self._look_for_collector(0)
        self._hand_over()

    def _hand_over(self):
        """No ring yet: the frames follow the request for one on its socket, where they wait however slow the collector is,
        and whatever becomes of this process. They are not counted in the ring that comes later."""
        right, me = self.right, []
        if self.link is None or not self.link.waiting or right.setdefault(0, me) is not me:
            return
        try:
            queue = self.queue
            while queue and self.mapping is None:
                item = queue.popleft()
                body, front = item[0]
                if not self.link.send(b'late\n' + sealed(body, front, 0, self.handed + 1, 0)):
                    queue.appendleft(item)
                    return
                self.handed += 1
        finally:
            del right[0]

    def _listen(self, now):
        """The collector's heartbeat: old means that it is gone, and the ring is offered to its successor."""
        beat = self.words[HEARTBEAT]
        if beat != self.beat or not self.beat_at:
            self.beat = beat
            self.beat_at = now
        elif now - self.beat_at > HEARTBEAT_OLD or self.link.waiting:
            self._look_for_collector(0)

    def _ring_bell(self):
        """The ring is more than half full: wakes the collector, which may be polling slowly."""
        now = clock()
        if 0 <= now - self.belled < BELL_PAUSE:
            return
        self.belled = now
        self._listen(now)
        if not self.link.waiting and self.link.send(b'bell\n') is False:
            self._look_for_collector(0)

    def _read_options(self, version):
        """The options block, if it is whole."""
        mapping = self.mapping
        at = mapping.options_at
        data = bytes(self.memory[at:at + mapping.options_bytes])
        if self.words[CONTROL] & 0xffffffff != version:
            return
        size = bytearray(data[:4])
        size = size[0] | size[1] << 8 | size[2] << 16 | size[3] << 24
        if size <= len(data) - 4:
            text = data[4:4 + size] if str is bytes else data[4:4 + size].decode('utf-8', 'replace')
            pairs = {}
            for line in text.split('\n'):
                key, equals, value = line.partition('=')
                value = _launch.unescape(value)
                if equals and value is not None:
                    pairs[key] = value
            _launch.change(pairs)
        self.options_seen = version

    def leave(self):
        """At exit: what waits goes into the ring."""
        if self.alive[0]:
            self._empty(clock() + EXIT_WAIT)

    def flush(self, milliseconds):
        """Waits until the collector has handed everything on; False if it has not in time."""
        until = clock() + milliseconds * 1000000
        self._empty(until)
        self._ask('drain\nring=%016x\n' % self.id, max(until - clock(), 0) / 1e9)
        left = max(until - clock(), 0) // 1000000
        return self._ask('flush\ntimeout_ms=%d\n' % left, left / 1e3) == 'ok'

    def _empty(self, until):
        """Moves all of the queue into the ring, as long as the collector makes room."""
        if self.mapping is None and self.queue and _launch.launch is not None:
            if self.link is not None and not self.link.waiting:
                self.link.next_try = 0
            self._look_for_collector(max(until - clock(), 0) / 1e9)
            self._hand_over()
        self.drain()
        while self.queue and self.mapping is not None and clock() < until:
            tail = self.words[TAIL]
            self.drain()
            if self.queue and self.words[TAIL] == tail:
                pause(0.001)

    def _ask(self, message, wait):
        if self.mapping is None or not self.link.send(message.encode('ascii')):
            return None
        return self.link.reply(wait)


_COUNTERS = {
    ENDED: 'published', BEGUN: 'begun', LOST_QUEUE_FULL: 'lost_queue_full', LOST_TOO_BIG: 'lost_too_big',
    LOST_ENCODE: 'lost_encode', STEPS_CUT: 'steps_cut', FAILURES: 'failures',
}
_DRAINING = tuple([Ring.__dict__[name].__code__ for name in ('drain', 'move', '_look_for_collector', '_hand_over')])
