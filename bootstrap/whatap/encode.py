"""A finished transaction as a frame: docs/protocol.md, section 4. What nearly all of them are is encoded in `tx.Transaction.end`,
in as few instructions as can be; everything here does the same for all.
"""
from . import policy, wire
from ._compat import PY2, Struct, clock, cpu_clock

# A frame, with its first 32 bytes, is at most a quarter of a ring.
MAX_BODY = 65536 - 32
MAX_HEAD = 36000
# Below this, the lengths of texts and (above 32 bits) of steps say that a frame is small enough.
MAX_PLAIN = 20000
MAX_LONG = 1000
MAX_ATTRIBUTE_BYTES = 16000
MAX_VALUE = 1000
MAX_COUNTED = 100000
_EMPTY = wire.EMPTY
_text_of = wire.texts.__getitem__
_NO_ERROR = _EMPTY * 3
FIVE_EMPTY = _EMPTY * 5
# id; trace; parent; wall; duration; cpu, status and type; counts; thread; lengths; texts
pack_fixed = Struct('<11Q').pack


def transaction(tx, status, process):
    """The frame of any transaction, without its place: (bytes from 32 on, first word)."""
    status = status or tx.status
    word, front = policy.status_words[tx.kind, status]
    flags = front >> 32 | tx.flags
    error = tx.error
    if tx.handled is not None:
        if error is None and (flags & wire.FLAG_ERROR or not policy.status_number(status)):
            error = tx.handled[0]
        elif error is not tx.handled[0]:
            _error_step(tx)
    if error is not None:
        flags |= wire.FLAG_ERROR
    elif tx.ignored:
        flags &= ~wire.FLAG_ERROR
    # Name and request are plain texts: see `begin_with` and `set_name`.
    head = b''.join(map(_text_of, (tx.name,) + tx.request)) + wire.text(tx.user) + (error or _NO_ERROR) + wire.text(tx.tracestate)
    if len(head) > MAX_HEAD:
        flags |= wire.FLAG_CUT
        values = (tx.name,) + tx.request + (tx.user,)
        head = b''.join([wire.text(exact(value)[:MAX_LONG] if value is not None else None) for value in values]) + (
            error if error is not None and len(error) < MAX_HEAD // 2 else _NO_ERROR) + wire.text(tx.tracestate)
    attributes = wire.attributes(tx.attributes, tx.about)
    if len(attributes) > MAX_ATTRIBUTE_BYTES:
        flags |= wire.FLAG_CUT
        attributes = _EMPTY
    data, count = _encode_steps(tx, MAX_BODY - wire.FIXED_BYTES - len(head) - len(attributes)) if tx.steps or tx.cut else (b'', 0)
    duration = (clock() - tx.start) // 1000
    trace_a, trace_b = tx.trace or (process, tx.id)
    if tx.cpu:
        word = word & ~wire.NO_CPU | _cpu_since(tx.cpu)
    return pack_fixed(
        tx.id, trace_a, trace_b, tx.parent, tx.wall, duration if duration > 0 else 0, word,
        count | min(tx.cut, 0xffffffff) << 32, tx.thread, len(head) | len(data) << 32, 12) + head + data + attributes, (
            wire.KIND | flags << 32)


def _cpu_since(start):
    used = (cpu_clock() - start) // 1000
    return used if 0 <= used < wire.NO_CPU else wire.NO_CPU


def _encode_steps(tx, room):
    """The steps that fit, and how many they are."""
    parts = finished(tx, tx.steps)
    data = b''.join(parts)
    if tx.late is not None or len(data) > room:
        from . import _over
        parts, cut = _over.fit(parts, tx.late, room)
        tx.cut += cut
        tx.late = None
        data = b''.join(parts)
    for _ in range(min(tx.cut, MAX_COUNTED)):
        tx.ring.steps_cut()
    return data, len(parts)


def finished(tx, steps):
    """All steps as bytes. Those that still run, in a thread of the transaction's or below a response that nobody
    closed, end now."""
    now = clock()
    parts = []
    for step in steps:
        if type(step) is not bytes:
            if step.tx is not None:
                step.tx = None
                step.duration = now - step.start
            step = encoded(tx, step)
        parts.append(step)
    return parts


def encoded(tx, step):
    """A step object as bytes."""
    return any_step(step.kind, step.flags, step.parent, step.start - tx.start, step.duration, step.value, 1, step.span_id,
                    step.a, step.b, step.c, step.d)


def _error_step(tx):
    """A handled exception whose answer was no server error."""
    failure, when, _ = tx.handled
    tx.steps.append(wire.step(wire.ERROR, 0, 0, micros(when - tx.start), 0, 0, 1, 0, failure + _EMPTY))


def any_step(kind, flags, parent, start, duration, value, repeat, span, a, b, c, d):
    """A step with its four texts; times in nanoseconds."""
    text = wire.text
    tail = text(a) + text(b) + text(c) + text(d)
    return wire.step(kind, flags, parent, micros(start), micros(duration), number(value), repeat, span, tail)


def number(value):
    """A row count or status as a frame holds it; -1 if it is unknown."""
    return value if type(value) in _INTS and -0x80000000 <= value < 0x80000000 else -1


_INTS = (int, type(1 << 62))


def micros(nanoseconds):
    """Microseconds within 32 bits."""
    return bounded(nanoseconds // 1000)


def bounded(number):
    """The number within 32 bits."""
    return 0 if number < 0 else number if number < 0xffffffff else 0xffffffff


def exact(value):
    """The value as plain text: a text of a class of its own might do anything when it is looked at."""
    if value is None or type(value) is str:
        return value
    data = wire.clean(value)
    return data if PY2 else data.decode('utf-8')


class Abouts(dict):
    """Attribute parts by the name of a function."""

    __slots__ = ()

    def __missing__(self, name):
        about = wire.attributes([('code.function.name', name[:MAX_VALUE])])
        if len(self) < 1000:
            self[name] = about
        return about


abouts = Abouts()
