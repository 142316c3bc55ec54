"""What differs between Python versions, and nothing else. No other file tests the version."""
import sys

from . import _native, guard

PY2 = sys.version_info[0] == 2
VERSION = sys.version_info[:3]

_time = _native.load('time')
_collections = _native.load('_collections')
_itertools = _native.load('itertools')
_random = _native.load('_random')
_struct = _native.load('_struct')
_zlib = _native.load('zlib')

Struct = _struct.Struct
guard.own_errors.extend([_struct.error, _zlib.error])
crc32 = _zlib.crc32
deque = _collections.deque
count = _itertools.count
repeat = _itertools.repeat
Random = _random.Random
pause = _time.sleep

if PY2:
    _thread = __import__('thread')
    map = _itertools.imap
    zip = _itertools.izip
    text = __builtins__['unicode'] if type(__builtins__) is dict else __builtins__.unicode
    integers = (int, long)  # noqa: F821 - exists where this runs
    next_of = lambda iterator: iterator.next  # noqa: E731
    # crc32 is signed here
    _crc32 = crc32

    def crc32(data, start=0):
        return _crc32(data, start) & 0xffffffff
else:
    import _thread
    map = map
    zip = zip
    text = str
    integers = (int,)
    next_of = lambda iterator: iterator.__next__  # noqa: E731

get_ident = _thread.get_ident

# Real threads only: gevent's would stop all others while it waits.
start_thread = _thread.start_new_thread if type(_thread.start_new_thread) is type(len) else None

if PY2:
    def is_ascii(value):
        """WSGI's texts are bytes here, as they came."""
        return type(value) is str
elif hasattr(str, 'isascii'):
    is_ascii = str.isascii
else:
    def is_ascii(value):
        if type(value) is not str:
            return False
        try:
            value.encode('ascii')
            return True
        except UnicodeError:
            return False


def latin(value):
    """What a WSGI server has decoded as Latin-1, as the UTF-8 that it nearly always is."""
    return value.encode('latin-1', 'replace').decode('utf-8', 'replace')


allocate_lock = _thread.allocate_lock

if hasattr(_time, 'monotonic_ns'):
    clock = _time.monotonic_ns
    wall = _time.time_ns
elif hasattr(_time, 'monotonic'):
    def clock(monotonic=_time.monotonic):
        """Nanoseconds of a clock that nobody sets."""
        return int(monotonic() * 1e9)

    def wall(time=_time.time):
        """Nanoseconds since 1970-01-01 UTC."""
        return int(time() * 1e9)
else:
    _latest = [0]

    def wall(time=_time.time):
        return int(time() * 1e9)

    def clock(time=_time.time):
        """Python 2.7 has only the clock that somebody may set: it stands still until the time is reached again."""
        now = int(time() * 1e9)
        if now > _latest[0]:
            _latest[0] = now
            return now
        return _latest[0] if _latest[0] - now < 10 ** 10 else _latest.__setitem__(0, now) or now

cpu_clock = getattr(_time, 'thread_time_ns', None)


if hasattr(bytes, 'hex'):
    hexadecimal = bytes.hex
else:
    def hexadecimal(data):
        """Two digits for each byte."""
        return ''.join(['%02x' % byte for byte in bytearray(data)])


def context_variable(name):
    """A value per execution context, as get/set functions.

    `contextvars` where it exists, which gevent follows since 20.5 (greenlet 0.4.17); else one per greenlet or thread.
    """
    try:
        variable = _native.load('_contextvars').ContextVar(name, default=None)
    except ImportError:
        return _Local(name)
    return variable


class _Local(object):
    """Per greenlet if greenlets are in use, else per thread."""

    def __init__(self, name):
        self._name = '_' + name
        self._local = _thread._local()

    def get(self):
        place = self._local
        module = sys.modules.get('greenlet')
        if module is not None:
            place = module.getcurrent()
        return getattr(place, self._name, None)

    def set(self, value):
        place = self._local
        module = sys.modules.get('greenlet')
        if module is not None:
            place = module.getcurrent()
        setattr(place, self._name, value)


def random_seed():
    """A number that no other process has."""
    import posix
    try:
        with _open('/dev/urandom') as source:
            data = source.read(16)
    except (OSError, IOError):
        data = b''
    seed = 0
    for byte in bytearray(data):
        seed = seed << 8 | byte
    return seed ^ wall() ^ posix.getpid() << 32


def _open(path):
    return open(path, 'rb', 0)


_pack_word = Struct('<Q').pack
_unpack_word = Struct('<Q').unpack
_pack_half = Struct('<I').pack
_unpack_half = Struct('<I').unpack


class _Words(object):
    """Numbers of a fixed width in shared memory, for Python 2.7. Stored by slice: one copy, never zeroed first."""

    __slots__ = ('_memory', '_width', '_pack', '_unpack')

    def __init__(self, memory, width, pack, unpack):
        self._memory = memory
        self._width = width
        self._pack = pack
        self._unpack = unpack

    def __getitem__(self, index):
        at = index * self._width
        return self._unpack(bytes(self._memory[at:at + self._width]))[0]

    def __setitem__(self, index, value):
        at = index * self._width
        self._memory[at:at + self._width] = self._pack(value)


def words_of(memory):
    """`memory` as numbers of eight bytes and of four."""
    if PY2:
        return _Words(memory, 8, _pack_word, _unpack_word), _Words(memory, 4, _pack_half, _unpack_half)
    view = memoryview(memory)
    if view.format != 'B':
        view = view.cast('B')
    return view.cast('Q'), view.cast('I')


class _Part(object):
    """A piece of shared memory, for Python 2.7."""

    __slots__ = ('_memory', '_start', '_end')

    def __init__(self, memory, start, end):
        self._memory = memory
        self._start = start
        self._end = end

    def __getitem__(self, index):
        if type(index) is slice:
            return self._memory[self._start + index.start:self._start + index.stop]
        return self._memory[self._start + index]

    def __setitem__(self, index, value):
        if type(index) is not slice:
            self._memory[self._start + index] = value
        elif index.stop > self._end:
            self._memory[self._start:self._end] = value
        else:
            self._memory[self._start + index.start:self._start + index.stop] = value

    __getslice__ = lambda self, start, end: self.__getitem__(slice(start, end))  # noqa: E731
    __setslice__ = lambda self, start, end, value: self.__setitem__(slice(start, end), value)  # noqa: E731


def part_of(memory, start, end):
    """Bytes `start` to `end`, to be written as a whole or one by one."""
    return _Part(memory, start, end) if PY2 else memoryview(memory)[start:end]


def counter(memory, words, index, start):
    """An iterator whose every step stores the next number in a word: one C call, so that no thread and no
    signal handler comes between counting and storing."""
    if PY2:
        place = slice(index * 8, index * 8 + 8)
        return map(memory.__setitem__, repeat(place), map(_pack_word, count(start + 1)))
    return map(words.__setitem__, repeat(index), count(start + 1))


MADV_WIPEONFORK = 18
PAGE = 4096


def fork_page():
    """Something whose item 0 is true in this process and false in a forked child.

    A page that the kernel wipes at fork (Python 3.8+, Linux 4.14+), else the process id.
    """
    try:
        mmap = _native.load('mmap')
        page = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(MADV_WIPEONFORK)
        page[0] = 1
        return memoryview(page)
    except (ImportError, AttributeError, OSError, ValueError, TypeError):
        return _Pid()


class _Pid(object):
    __slots__ = ('_pid', '_ask')

    def __init__(self):
        import posix
        self._ask = posix.getpid
        self._pid = posix.getpid()

    def __getitem__(self, index):
        return self._ask() == self._pid


def at_exit(function):
    """Calls `function` when the interpreter ends in the normal way, after what the program has registered since."""
    if 'atexit' in sys.builtin_module_names:
        import atexit
        atexit.register(function)
    elif 'atexit' in sys.modules:
        sys.modules['atexit'].register(function)
    elif getattr(sys, 'exitfunc', _end) is _end:
        # Python 2.7: the module `atexit` takes this one over when somebody imports it.
        sys.exitfunc = _end
        _at_end.append(function)


_at_end = []


def _end():
    while _at_end:
        _at_end.pop()()
