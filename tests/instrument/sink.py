"""The tracer inside a test's own process: starts it without a collector, takes its frames and reads them back.

The reader is written from docs/protocol.md, section 4, and shares no code with the tracer.
"""
import os
import struct
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
APPS = os.path.join(ROOT, 'tests', 'apps')
BOOTSTRAP = os.path.join(ROOT, 'bootstrap')
KINDS = [None, 'sql', 'http', 'method', 'message', 'dbc', 'error', 'log', 'stack', 'fetch']

frames = []


def start(**options):
    """Loads the tracer as `whatap` and instruments; its frames go to `frames`. Idempotent."""
    if 'whatap' in sys.modules:
        return
    sys.path.insert(0, BOOTSTRAP)
    import whatap.ring
    from whatap import _launch, hooks
    sys.path.remove(BOOTSTRAP)
    _launch.options.update(options)
    whatap.ring.Ring.attend = lambda ring: True  # there is no collector to ask
    whatap.ring.Ring.drain = drain
    whatap.ring.Ring.move = lambda ring, queue, body, place: drain(ring)
    hooks.install()
    slow_from(None)


class slow_from(object):
    """Inside the block what takes this long is a step, as in an application. Else nothing is slow, however busy the machine is."""

    def __init__(self, milliseconds):
        self.set(milliseconds)

    def set(self, milliseconds):
        from whatap.instrument import _past
        _past.FROM = 10 ** 15 if milliseconds is None else milliseconds * 1000000

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.set(None)


def drain(ring):
    while ring.queue:
        frames.append(read(ring.queue.popleft()[0]))


def take():
    """All frames so far, which are forgotten here."""
    found = list(frames)
    del frames[:]
    return found


def read(body):
    """A frame from its 32nd byte on, as a dictionary."""
    data, front = body
    flags = front >> 32
    reader = Reader(data)
    identity, trace, parent, start, duration, cpu, status, kind, count, cut, thread, texts, steps, number = reader.take('<Q16sQQQIHBxIIQIIB7x')
    if number != 12:
        raise ValueError('%d texts' % number)
    names = ('name', 'method', 'path', 'host', 'client', 'agent', 'referer', 'user', 'error_class', 'error_message', 'error_stack', 'tracestate')
    frame = {'flags': flags, 'id': '%016x' % identity, 'trace': ''.join('%02x' % byte for byte in bytearray(trace)), 'parent': '%016x' % parent,
             'start': start, 'duration': duration, 'status': status, 'type': kind, 'cut': cut, 'thread': thread}
    before = reader.at
    for name in names:
        frame[name] = reader.text()
    if reader.at - before != texts:
        raise ValueError('texts do not fill their part')
    before = reader.at
    frame['steps'] = [read_step(reader) for _ in range(count)]
    if reader.at - before != steps:
        raise ValueError('steps do not fill their part')
    frame['attributes'] = dict((reader.text(), reader.text()) for _ in range(reader.take('<H')[0]))
    if reader.at != len(data):
        raise ValueError('bytes behind the frame')
    return frame


def read_step(reader):
    before = reader.at
    size, kind, flags, parent, start, duration, value, repeat, span = reader.take('<IBBHIIiIQ')
    step = {'kind': KINDS[kind], 'failed': bool(flags & 1), 'parent': parent, 'start': start, 'duration': duration,
            'value': value, 'repeat': repeat, 'span': '%016x' % span}
    for name in 'abcd':
        step[name] = reader.text()
    if reader.at - before != size:
        raise ValueError('a step of another size')
    return step


class Reader(object):
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        size = self.take('<H')[0]
        value = self.data[self.at:self.at + size].decode('utf-8')
        if len(self.data) < self.at + size:
            raise ValueError('a text longer than its frame')
        self.at += size
        return value if isinstance(value, str) else value.encode('utf-8')


class Traced(unittest.TestCase):
    """A test whose frames are its own. Fails if our guard had to swallow anything."""

    maxDiff = None
    faults_allowed = False

    def setUp(self):
        start()
        take()
        from whatap import guard
        self.faults_before = len(guard.first_faults)

    def tearDown(self):
        from whatap import guard
        if not self.faults_allowed:
            self.assertEqual(guard.first_faults[self.faults_before:], [])

    def transaction(self, name='test'):
        """A transaction around a block of the test."""
        from whatap import tx
        begun = tx.begin('GET', '/' + name)
        begun.returned = None  # this block ends it
        return _Block(begun)

    def frame(self):
        """The only frame."""
        found = take()
        self.assertEqual(len(found), 1, [frame['path'] for frame in found])
        return found[0]

    def steps(self, *kinds):
        """The steps of the only frame, of these kinds if any are named."""
        return [step for step in self.frame()['steps'] if not kinds or step['kind'] in kinds]


class _Block(object):
    def __init__(self, tx):
        self.tx = tx

    def __enter__(self):
        return self.tx

    def __exit__(self, *failure):
        self.tx.end(200)
