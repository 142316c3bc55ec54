"""Reads frames (docs/protocol.md, section 4): what the tests have instead of a collector. Works on every Python."""
import binascii
import struct
import zlib

FIXED = struct.Struct('<IIBBHIQQQ16sQQQIHBBIIQIIB7x')
STEP = struct.Struct('<IBBHIIiIQ')
TEXTS = ('name', 'method', 'path', 'host', 'client', 'agent', 'referer', 'user', 'error_class', 'error_message',
         'error_stack', 'tracestate')


class Bad(Exception):
    """Not a whole frame."""


def checksum(data, position):
    """The CRC that belongs to these bytes at this stream position."""
    return zlib.crc32(data[8:], zlib.crc32(struct.pack('<Q', position))) & 0xffffffff


def decode(data, position):
    """A frame, without the gap, as a dict in the form of tests/vectors/frames.txt."""
    if len(data) < 120 or struct.unpack('<I', data[:4])[0] != len(data):
        raise Bad('length')
    fields = FIXED.unpack(data[:120])
    (_, crc, kind, version, fixed, flags, ring, sequence, identity, trace, parent, start, duration, cpu, status, type_,
     _, count, cut, thread, text_bytes, step_bytes, texts) = fields
    if crc != checksum(data, position):
        raise Bad('checksum')
    if kind != 1 or version != 1 or fixed != 120 or texts != 12:
        raise Bad('kind')
    frame = {'position': position, 'flags': flags, 'ring': '%016x' % ring, 'sequence': sequence, 'id': '%016x' % identity,
             'trace': binascii.hexlify(trace).decode('ascii'), 'parent': '%016x' % parent, 'start': start,
             'duration': duration, 'cpu': cpu, 'status': status, 'type': type_, 'cut': cut, 'thread': thread}
    cursor = Cursor(data, fixed, fixed + text_bytes)
    for name in TEXTS:
        frame[name] = cursor.text()
    cursor.finish()
    cursor = Cursor(data, fixed + text_bytes, fixed + text_bytes + step_bytes)
    frame['steps'] = [cursor.step() for _ in range(count)]
    cursor.finish()
    cursor = Cursor(data, fixed + text_bytes + step_bytes, len(data))
    frame['attributes'] = [[cursor.text(), cursor.text()] for _ in range(cursor.number('<H', 2))]
    cursor.finish()
    return frame


class Cursor(object):
    def __init__(self, data, at, end):
        self.data, self.at, self.end = data, at, end

    def take(self, size):
        if self.at + size > self.end or self.end > len(self.data):
            raise Bad('too short')
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, form, size):
        return struct.unpack(form, self.take(size))[0]

    def text(self):
        return self.take(self.number('<H', 2)).decode('utf-8')

    def step(self):
        inner = Cursor(self.data, self.at, self.at + struct.unpack('<I', self.data[self.at:self.at + 4])[0])
        _, kind, flags, parent, start, duration, value, repeat, span = STEP.unpack(inner.take(32))
        step = {'kind': kind, 'flags': flags, 'parent': parent, 'start': start, 'duration': duration, 'value': value,
                'repeat': repeat, 'span': '%016x' % span}
        for name in 'abcd':
            step[name] = inner.text()
        inner.finish()
        self.at = inner.at
        return step

    def finish(self):
        if self.at != self.end:
            raise Bad('trailing bytes')
