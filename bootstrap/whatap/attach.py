"""How an interpreter gets its ring: docs/protocol.md, section 2. Loaded at the first transaction.

Nothing here waits, except `Link.answer` when it is told to. The socket is kept as a bare number: an object would
close it when it is freed, perhaps after the program has closed our descriptor and opened a file of its own there.
"""
import posix
import sys

from . import _launch, _native
from ._compat import PY2, Struct, clock

_socket = _native.load('_socket')
_mmap = _native.load('mmap')

MAGIC = b'WHATAPR1'
LAYOUT = 1
MAX_MESSAGE = 32 * 1024
MAX_RING = 64 * 1024 * 1024
SECOND = 1000000000
RETRY = SECOND
RETRY_WHEN_REFUSED = 10 * SECOND
UNMAPPED = 65534

# Flags that Python's module does not name everywhere, with Linux's numbers.
_CLOEXEC, _NONBLOCK = 0o2000000, 0o4000
_SEQPACKET = 5
_SO_PEERCRED = 17
_DONTWAIT, _NOSIGNAL, _CMSG_CLOEXEC = 0x40, 0x4000, 0x40000000
_SCM_RIGHTS = 1

_header = Struct('<8sIIQIIIIII').unpack
_credentials = Struct('<III')
_number = Struct('<i')

# Never freed: mappings, and Python 2.7's socket objects, which cannot be parted from their descriptor.
_kept = []


class Mapping(object):
    """A ring as the collector describes it in the mapping's first bytes."""

    __slots__ = ('memory', 'id', 'slots_at', 'slots', 'options_at', 'options_bytes', 'data_at', 'data_bytes', 'number',
                 'identity')

    def __init__(self, memory, size):
        magic, layout, bytes_, self.id, self.slots_at, self.slots, self.options_at, self.options_bytes, self.data_at, \
            self.data_bytes = _header(bytes(memory[0:48]))
        if magic != MAGIC or layout != LAYOUT or bytes_ > size or not self.id:
            raise ValueError('not a ring')
        for at, length in ((self.slots_at, self.slots * 192), (self.options_at, self.options_bytes),
                           (self.data_at, self.data_bytes)):
            if at % 8 or at < 512 or at + length > size:
                raise ValueError('bad layout')
        if self.data_bytes & self.data_bytes - 1 or self.data_bytes < 4096 or self.slots > 256:
            raise ValueError('bad layout')
        self.memory = memory
        self.number = -1
        self.identity = None


class Link(object):
    """The connection to the collector, from the first try to the ring."""

    __slots__ = ('number', 'identity', 'object', 'waiting', 'next_try', 'refusal')

    def __init__(self):
        self.number = -1
        self.identity = None
        self.object = None
        self.waiting = False
        self.next_try = 0
        self.refusal = None

    def connect(self, ring, mapping):
        """One try, at most one a second: connects, asks for a ring (or hands over `mapping`). Never waits."""
        now = clock()
        launch = _launch.launch
        if launch is None or 0 <= self.next_try - now <= RETRY_WHEN_REFUSED:
            return
        self.next_try = now + RETRY
        self.drop()
        connection = None
        try:
            connection = _new_socket()
            connection.connect('\0' + launch.name)
            if not _trusted(connection):
                self.next_try = now + RETRY_WHEN_REFUSED
                return
            _send(connection, _request(launch, mapping), mapping)
            self._keep(connection)
            connection = None
            self.waiting = True
        except (OSError, IOError, ValueError):
            # Nobody there, or too many before us: the next try will tell. Anything else is worth a line.
            number = getattr(sys.exc_info()[1], 'errno', None)
            if number not in (11, 111):
                self.refusal = 'no connection, error %s' % number
        finally:
            if connection is not None:
                connection.close()

    def answer(self, wait):
        """The mapping if the collector has answered; waits at most `wait` seconds."""
        if not self.waiting:
            return None
        connection = self._object()
        if connection is None:
            self.waiting = False
            return None
        descriptors = []
        try:
            packet = _receive_within(connection, wait, descriptors)
            if packet is None:
                return None
            self.waiting = False
            return self._take(packet, descriptors)
        finally:
            if self.number >= 0:  # else it has been closed along with the answer
                connection.settimeout(0)
            self._let_go(connection)
            for number in descriptors:
                posix.close(number)

    def _take(self, packet, descriptors):
        verb, values = parse(packet)
        if verb == 'ring':
            self.refusal = None
            return _map(values, descriptors)
        self.refusal = values.get('reason', '?')[:100] if verb == 'no' else None
        if verb == 'no':
            self.next_try = clock() + RETRY_WHEN_REFUSED
        self.drop()
        return None

    def send(self, data):
        """One packet, never waiting. False if there is no connection any more, None if its queue is full."""
        connection = self._object()
        if connection is None:
            return False
        try:
            connection.send(data, _DONTWAIT | _NOSIGNAL)
            return True
        except (OSError, IOError):
            return None if _would_block(sys.exc_info()[1]) else False
        finally:
            self._let_go(connection)

    def reply(self, wait):
        """The next packet's verb, within `wait` seconds, or None."""
        connection = self._object()
        if connection is None:
            return None
        try:
            connection.settimeout(wait)
            return parse(connection.recv(MAX_MESSAGE))[0]
        except (OSError, IOError):
            return None
        finally:
            connection.settimeout(0)
            self._let_go(connection)

    def drop(self):
        """Closes the connection if the descriptor is still ours."""
        connection = self._object()
        self.number = -1
        self.object = None
        self.waiting = False
        if connection is not None:
            if connection in _kept:
                _kept.remove(connection)
            connection.close()

    def _keep(self, connection):
        number = connection.fileno()
        self.identity = _identity(number)
        self.number = number
        if PY2:
            self.object = connection
            _kept.append(connection)
        else:
            connection.detach()

    def _object(self):
        """The connection as an object, if the descriptor is still the one that we opened."""
        number = self.number
        if number < 0:
            return None
        if _identity(number) != self.identity:
            self.number = -1
            return None
        if PY2:
            return self.object
        return _socket.socket(_socket.AF_UNIX, _SEQPACKET, 0, number)

    def _let_go(self, connection):
        if not PY2:
            connection.detach()


def ask(message, wait):
    """The verb of the collector's answer to one message on a connection of its own, within `wait` seconds, or None."""
    launch = _launch.launch
    if launch is None:
        return None
    connection = None
    try:
        connection = _new_socket()
        connection.connect('\0' + launch.name)
        if not _trusted(connection):
            return None
        connection.send(message, _DONTWAIT | _NOSIGNAL)
        connection.settimeout(wait)
        return parse(connection.recv(MAX_MESSAGE))[0]
    except (OSError, IOError, ValueError):
        return None
    finally:
        if connection is not None:
            connection.close()


def parse(packet):
    """Verb and values of a message."""
    lines = packet.decode('utf-8', 'replace').split('\n') if not PY2 else packet.split('\n')
    values = {}
    for line in lines[1:]:
        key, equals, value = line.partition('=')
        value = _launch.unescape(value)
        if equals and value is not None:
            values.setdefault(key, value)
    return lines[0], values


def _request(launch, mapping):
    from ._version import VERSION
    name = getattr(getattr(sys, 'implementation', None), 'name', 'cpython')
    runtime = '%s %d.%d.%d' % ((_NAMES.get(name, name),) + tuple(sys.version_info[:3]))
    pairs = [('version', VERSION), ('pid', str(posix.getpid())), ('runtime', runtime)]
    if mapping is not None:
        pairs.append(('ring', '%016x' % mapping.id))
    if launch.token:
        pairs.append(('token', launch.token))
    if len(launch.text) < MAX_MESSAGE // 4:
        pairs.append(('launch', launch.text))
    lines = ['attach'] + ['%s=%s' % (key, _launch.escape(value)) for key, value in pairs]
    return ('\n'.join(lines) + '\n').encode('ascii')


_NAMES = {'cpython': 'CPython', 'pypy': 'PyPy'}


def _new_socket():
    with _LowNumbersTaken():
        return _socket.socket(_socket.AF_UNIX, _SEQPACKET | _CLOEXEC | _NONBLOCK, 0)


class _LowNumbersTaken(object):
    """Descriptors 0 to 2 are the program's, also when it has closed them."""

    def __enter__(self):
        self._taken = []
        while True:
            number = posix.open('/dev/null', posix.O_RDONLY | _CLOEXEC)
            if number > 2:
                posix.close(number)
                return
            self._taken.append(number)

    def __exit__(self, *exc):
        for number in self._taken:
            posix.close(number)


def _trusted(connection):
    """Whether the other side is our own user or root."""
    data = connection.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, _credentials.size)
    uid = _credentials.unpack(data)[1]
    return uid == 0 or uid == posix.geteuid() and (uid != UNMAPPED or _every_user_is_mapped())


def _every_user_is_mapped():
    """Whether this user namespace knows every user, as the host's does: then `nobody` is a user like any other."""
    try:
        with _LowNumbersTaken():
            number = posix.open('/proc/self/uid_map', posix.O_RDONLY | _CLOEXEC)
        try:
            return posix.read(number, 512).split() == [b'0', b'0', b'4294967295']
        finally:
            posix.close(number)
    except (OSError, IOError):
        return False


def _send(connection, data, mapping):
    if mapping is not None and not PY2 and mapping.number >= 0 and _identity(mapping.number) == mapping.identity:
        rights = [(_socket.SOL_SOCKET, _SCM_RIGHTS, _number.pack(mapping.number))]
        connection.sendmsg([data], rights, _DONTWAIT | _NOSIGNAL)
    else:
        connection.send(data, _DONTWAIT | _NOSIGNAL)


def _receive_within(connection, wait, descriptors):
    """One packet, b'' if the connection broke, None if nothing came within `wait` seconds."""
    connection.settimeout(wait)
    try:
        return _receive(connection, descriptors)
    except (OSError, IOError):
        error = sys.exc_info()[1]
        return None if isinstance(error, _socket.timeout) or _would_block(error) else b''


def _receive(connection, descriptors):
    """One packet; the descriptors that came along are added to the list."""
    if not hasattr(connection, 'recvmsg'):
        return connection.recv(MAX_MESSAGE)
    space = _socket.CMSG_SPACE(4 * _number.size)
    packet, extra, _, _ = connection.recvmsg(MAX_MESSAGE, space, _CMSG_CLOEXEC)
    for level, kind, data in extra:
        if level == _socket.SOL_SOCKET and kind == _SCM_RIGHTS:
            for at in range(0, len(data) - len(data) % _number.size, _number.size):
                descriptors.append(_number.unpack(data[at:at + _number.size])[0])
    return packet


def _map(values, descriptors):
    """Maps the ring of an answer. None if it is not one."""
    opened = -1
    try:
        if descriptors:
            number = descriptors[0]
        else:
            number = opened = posix.open(
                '/proc/%d/fd/%d' % (int(values['pid']), int(values['fd'])), posix.O_RDWR | _CLOEXEC)
        size = int(values['size'])
        if not 65536 <= size <= MAX_RING or posix.fstat(number).st_size < size:
            return None
        with _LowNumbersTaken():
            guess = posix.dup(number)
            posix.close(guess)
            memory = _mmap.mmap(number, size, _mmap.MAP_SHARED, _mmap.PROT_READ | _mmap.PROT_WRITE)
        _kept.append(memory)
        mapping = Mapping(memory, size)
        # The mapping object has a descriptor of its own, which it does not tell: the lowest free one.
        if _identity(guess) == _identity(number):
            mapping.number = guess
            mapping.identity = _identity(guess)
            _close_on_exec(guess)
        return mapping
    except (OSError, IOError, ValueError, KeyError):
        return None
    finally:
        if opened >= 0:
            posix.close(opened)


def _close_on_exec(number):
    if PY2:
        fcntl = _native.load('fcntl')
        fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC)


def _identity(number):
    try:
        status = posix.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _would_block(error):
    return getattr(error, 'errno', None) in (11, 4)
