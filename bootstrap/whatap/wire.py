"""Frames as bytes: docs/protocol.md, section 4. No I/O, no clock, no state but two bounded caches.

A frame is made in two steps. `transaction` builds what does not depend on the place in the ring, from byte 32
on; `sealed` puts ring id, sequence number and checksum in front when the place is known.
"""
from ._compat import Struct, crc32, text as text_type

MAX_TEXT = 30000
FIXED_BYTES = 120
STEP_BYTES = 32

KIND_TRANSACTION = 1

FLAG_ERROR = 1
FLAG_SAMPLED = 2
FLAG_REMOTE_PARENT = 4
FLAG_CUT = 8
FLAG_STACKS = 16

WEB, TASK, FUNCTION, OTHER = range(4)

SQL, HTTP, METHOD, MESSAGE, DBC, ERROR, LOG, STACK, FETCH = range(1, 10)

STEP_FAILED = 1
STEP_CUT = 2

NO_CPU = 0xffffffff

# Longer texts are not worth keeping; the number bounds each cache at a few hundred kB.
MAX_CACHED_TEXT = 512
MAX_CACHED = 1000

_length = Struct('<H').pack
_fixed = Struct('<Q16sQQQIHBxIIQIIB7x').pack
pack_place = Struct('<QQQ').pack  # kind, version, fixed bytes and flags; ring; sequence
pack_word = Struct('<Q').pack
_step = Struct('<IBBHIIiIQ')  # length, kind, flags, parent, start, duration, value, repetitions, span
pack_step, unpack_step = _step.pack, _step.unpack

GAPS = [b'\0' * (-size % 8) for size in range(8)]
EMPTY = b'\0\0'
FOUR_EMPTY = EMPTY * 4


def clean(value):
    """UTF-8 bytes of any value, at most MAX_TEXT of them. Calls nothing that a user's class defines."""
    kind = type(value)
    if kind is text_type:
        data = _utf8(value[:MAX_TEXT])
    elif kind is bytes:
        data = _utf8(value[:MAX_TEXT].decode('utf-8', 'replace'))
    elif value is None:
        return b''
    elif isinstance(value, text_type):
        data = _utf8(text_type.__getitem__(value, slice(0, MAX_TEXT)))
    elif isinstance(value, bytes):
        data = _utf8(bytes.__getitem__(value, slice(0, MAX_TEXT)).decode('utf-8', 'replace'))
    elif kind in _PLAIN:
        data = _utf8(text_type(value)) if abs_bits(value) < 4096 else b'<number>'
    elif kind is bytearray or kind is memoryview:
        data = _utf8(bytes(value[:MAX_TEXT]).decode('utf-8', 'replace'))
    else:
        name = type.__getattribute__(kind, '__name__')
        data = b'<' + (name if type(name) is bytes else _utf8(name)) + b'>'
    if len(data) > MAX_TEXT:
        data = data[:MAX_TEXT]
        while data and bytearray(data[-1:])[0] & 0xC0 == 0x80:
            data = data[:-1]
        data = data[:-1] if data and bytearray(data[-1:])[0] >= 0xC0 else data
    return data


_PLAIN = (int, float, bool, type(10 ** 30))


def abs_bits(number):
    """Size of an exact builtin number: a huge one takes seconds to print."""
    kind = type(number)
    return 64 if kind is float or kind is bool else number.bit_length()


def _utf8(value):
    try:
        return value.encode('utf-8')
    except UnicodeError:
        return value.encode('utf-8', 'backslashreplace')


def encode(value):
    """One text of a frame: length and bytes."""
    data = clean(value)
    return _length(len(data)) + data


class Texts(dict):
    """Encoded texts by value; `texts[value]` makes and keeps it. Only exact text may be a key."""

    __slots__ = ()

    def __missing__(self, value):
        data = encode(value)
        if len(data) <= MAX_CACHED_TEXT:
            if len(self) >= MAX_CACHED:
                self.clear()
            self[value] = data
        return data


texts = Texts()
texts[None] = EMPTY


def text(value):
    """One encoded text, from the cache if the value can be a key: comparing bytes with text warns under -b."""
    if type(value) in _KEYS:
        return texts[value]
    return encode(value)


_KEYS = frozenset((str, text_type, type(None)))


def transaction(flags, identity, trace, parent, start, duration, cpu, status, kind, cut, thread, head, steps, count, attributes):
    """The bytes from 32 on, in full: what the vectors are made with. `tx.py` packs the same in fewer words."""
    return _fixed(identity, trace, parent, start, duration, cpu, status, kind, count, cut, thread,
                  len(head), len(steps), 12) + head + steps + attributes


def sealed(body, front, ring, sequence, position):
    """The whole frame for this place, with the gap behind it. `front`: KIND, and the flags above 32 bits."""
    data = pack_place(front, ring, sequence) + body
    size = len(data) + 8
    return pack_word(size | crc32(data, crc32(pack_word(position))) << 32) + data + GAPS[size & 7]


KIND = KIND_TRANSACTION | 1 << 8 | FIXED_BYTES << 16


def step(kind, flags, parent, start, duration, value, repeat, span, tail):
    """One step; `tail` holds its four encoded texts."""
    return pack_step(len(tail) + STEP_BYTES, kind, flags, parent, start, duration, value, repeat, span) + tail


def step_front(tail, kind):
    """The first eight bytes of a step of this kind, without flags, below the transaction itself."""
    return _front(tail + STEP_BYTES, kind, 0, 0)


_front = Struct('<IBBH').pack
# The last part of a step's fixed bytes: one repetition, no span of its own.
ONCE = Struct('<IQ').pack(1, 0)


def attributes(pairs, before=EMPTY):
    """The attribute part. `before` is such a part with one attribute, or none."""
    if not pairs:
        return before
    parts = [_length(len(pairs) + (before != EMPTY)), before[2:]]
    for key, value in pairs:
        parts.append(text(key))
        parts.append(text(value))
    return b''.join(parts)
