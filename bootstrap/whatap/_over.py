"""Steps beyond what one transaction records: equal ones become one step with repetitions, the slowest of them one of its own, so
that counts and times still hold and what took long is still seen. Loaded when a transaction has so many.
"""
from . import wire

# So many different ones; the others add up by kind.
MAX_DIFFERENT = 100
# What is kept for them at the end of a frame that gets full.
ROOM = 16384

_SUMMED = frozenset((wire.SQL, wire.HTTP, wire.METHOD, wire.DBC, wire.FETCH))
_OTHER = wire.encode('(other)') + wire.EMPTY * 3
_MAX = 0xffffffff
_MAX_VALUE = 0x7fffffff


class Sums(object):
    """Of the steps of one transaction."""

    __slots__ = ('found',)

    def __init__(self):
        self.found = {}  # kind, flags, HTTP status, texts -> Sum

    def add(self, part):
        """Adds an encoded step."""
        numbers = wire.unpack_step(part[:wire.STEP_BYTES])
        kind, flags, value, tail = numbers[1], numbers[2], numbers[6], part[wire.STEP_BYTES:]
        key = kind, flags, value if kind == wire.HTTP else None, tail
        if key not in self.found and len(self.found) >= MAX_DIFFERENT:
            key = kind, flags, None, _OTHER
        new = Sum(numbers)
        found = self.found.setdefault(key, new)
        if found is not new:
            found.add(numbers)

    def parts(self, room):
        """As encoded steps within `room` bytes: the longest first, what does not fit by kind."""
        parts = []
        others = Sums()
        others_room = len(_SUMMED) * 4 * (wire.STEP_BYTES + len(_OTHER))
        for key, found in sorted(self.found.items(), key=_by_duration):
            made = found.parts(key)
            size = sum(map(len, made))
            if room - size >= others_room:
                room -= size
                parts += made
            else:
                for part in made:
                    others.add(part[:wire.STEP_BYTES] + _OTHER)
        for key, found in others.found.items():
            for part in found.parts(key):
                if len(part) <= room:
                    room -= len(part)
                    parts.append(part)
        return parts


class Sum(object):
    """Of equal steps: the numbers of the slowest, and the sum of the others."""

    __slots__ = ('slowest', 'start', 'duration', 'value', 'repeat')

    def __init__(self, numbers):
        self.slowest = numbers
        self.start = _MAX
        self.duration = self.value = self.repeat = 0

    def add(self, numbers):
        slowest = self.slowest
        if numbers[5] * slowest[7] > slowest[5] * numbers[7]:
            self.slowest, numbers = numbers, slowest
        self.start = min(self.start, numbers[4])
        self.duration += numbers[5]
        self.value = -1 if self.value < 0 or numbers[6] < 0 else self.value + numbers[6]
        self.repeat += numbers[7]

    def parts(self, key):
        """One step or two."""
        kind, flags, status, tail = key
        _, _, _, _, start, duration, value, repeat, span = self.slowest
        parts = [wire.step(kind, flags, 0, start, duration, value, repeat, span, tail)]
        if self.repeat:
            value = self.value if kind != wire.HTTP else status or 0
            parts.append(wire.step(
                kind, flags, 0, self.start, min(self.duration, _MAX), min(value, _MAX_VALUE), min(self.repeat, _MAX), 0, tail))
        return parts


def _by_duration(item):
    found = item[1]
    return -(found.slowest[5] + found.duration)


def fit(parts, sums, room):
    """The steps of a transaction with too many: (those within `room` bytes, how many of `parts` are not there as they were)."""
    sums = sums or Sums()
    reserve = min(ROOM, room // 2)
    size = sum(map(len, parts))
    if size + reserve <= room:
        return parts + sums.parts(room - size), 0
    kept, left = 0, room - reserve
    for part in parts:
        left -= len(part)
        if left < 0:
            break
        kept += 1
    points, left = [], reserve // 2
    for part in parts[kept:]:
        if ord(part[4:5]) in _SUMMED:
            sums.add(part)
        elif len(part) <= left:
            left -= len(part)
            points.append(part[:6] + b'\0\0' + part[8:])  # what it lay below may be gone
    made = parts[:kept] + points
    return made + sums.parts(room - sum(map(len, made))), len(parts) - len(made)
