"""The transaction of the calling context, its steps, and their way into the ring.

Nothing here raises into the application: a fault of ours ends in None or in nothing, everything else that
passes through is the application's (see guard.py).
"""
import sys

from . import _launch, errors, guard, ring as rings, wire
from ._compat import PY2, Random, at_exit, clock, context_variable, cpu_clock, get_ident, random_seed, text as text_type
from ._compat import Struct
from .wire import DBC, ERROR, FETCH, FUNCTION, HTTP, LOG, MESSAGE, METHOD, OTHER, SQL, TASK, WEB  # noqa: F401

MAX_STEPS = 1000
MAX_ATTRIBUTES = 64
MAX_LOGS = 100
MAX_TRACESTATE = 512

LIVE, ENDED = 1, 2

_ring = rings.Ring()
_random = Random(random_seed()).getrandbits
_context = context_variable('whatap')
_get = _context.get
_set = _context.set

# Fixed layouts, written as eight-byte numbers where that saves arguments: packing is the larger part of a frame's cost.
_slot_name = Struct('<QQQQ8x68sQI').pack  # version and length; id; wall; thread; name; version and state; time of state
_slot_state = Struct('<BBHI72s').pack
_frame = Struct('<11Q').pack  # id; trace; parent; wall; duration; cpu, status and type; counts; thread; lengths; texts
_two_numbers = Struct('<QQ')
_three_halves = Struct('<IIi').pack
_texts = wire.texts
_EMPTY = wire.EMPTY
_NOTHING_ELSE = wire.EMPTY * 6  # user, error, tracestate, attributes
_NO_CPU = wire.NO_CPU


# -- public: the calling context

def current():
    """The calling context's transaction, if it belongs to this process and has not ended."""
    tx = _get()
    if tx is not None and tx.state == LIVE and tx.ring.alive[0]:
        return tx
    return None


def begin(method, path, host=None, client=None, user_agent=None, referer=None, traceparent=None, tracestate=None,
          kind=WEB):
    """Begins a transaction and makes it the context's. None: off, ignored, or inside another one."""
    try:
        ring = _ring
        if not ring.alive[0]:
            ring = _forked()
        if ring.words[12] != ring.control and not ring.attend():
            return None
        tx = _get()
        if tx is not None and tx.state == LIVE and tx.ring is ring and not _abandoned(tx):
            return None
        if type(path) is not str or type(method) is not str:
            method, path = _exact(method), _exact(path)
        if ignored is not None and kind == WEB and ignored(method, path):
            return None
        if not (type(host) is type(client) is type(user_agent) is str):
            host, client, user_agent = _exact(host), _exact(client), _exact(user_agent)
        now = clock()
        if not 0 <= now - ring.anchor <= 1000000000:
            ring.renew(now)
        tx = Transaction()
        tx.ring = ring
        tx.kind = kind
        tx.method = method
        tx.path = tx.name = path
        tx.host = host
        tx.client = client
        tx.agent = user_agent
        tx.referer = referer if referer is None else _exact(referer)
        tx.start = now
        tx.wall = wall = now // 1000 + ring.offset
        tx.id = identity = _random(64) or 1
        tx.parent = tx.flags = tx.status = tx.cut = tx.logs = tx.open = 0
        tx.trace = tx.tracestate = tx.user = tx.attributes = tx.error = tx.handled = tx.body = None
        tx.environ = tx.start_response = tx.answer = None
        tx.steps = []
        tx.returned = False
        tx.thread = thread = get_ident()
        tx.cpu = cpu_clock() if measure_cpu else 0
        if traceparent is not None:
            _follow(tx, traceparent, tracestate)
        try:
            tx.slot = slot = ring.free.pop()
        except IndexError:
            tx.slot = tx.at = -1
        else:
            version = ring.versions[slot] + 1
            ring.versions[slot] = version + 1
            label = _methods[method] + _texts[path][2:]
            size = len(label)
            tx.at = at = slot * 192 + 12288
            ring.memory[at:at + 120] = _slot_name(
                version | (size << 32 if size < 68 else _LONGEST), identity, wall, thread, label, version, 0)
        tx.state = LIVE
        _set(tx)
        ring.begun()
        return tx
    except BaseException:
        if not guard.ours():
            raise
        return None


def activate(tx):
    """Makes `tx` (or None) the context's transaction; the answer is for `deactivate`."""
    earlier = _get()
    _set(tx)
    return earlier


def deactivate(earlier):
    """Puts back what `activate` found, unless it has ended by now."""
    if earlier is not None and earlier.state != LIVE:
        earlier = None
    _set(earlier)


def capture():
    """The transaction to carry into another thread, or None."""
    return current()


def run_with(tx, function, args=(), kwargs=None):
    """Calls `function` exactly once with `tx` as the context's transaction."""
    if tx is None or tx.state != LIVE or not tx.ring.alive[0]:
        return function(*args, **(kwargs or {}))
    earlier = _get()
    _set(tx)
    try:
        return function(*args, **(kwargs or {}))
    finally:
        _set(earlier)


class Transaction(object):
    """One request or task. Made by `begin` only."""

    __slots__ = (
        'ring', 'state', 'kind', 'name', 'method', 'path', 'host', 'client', 'agent', 'referer', 'user', 'tracestate',
        'start', 'wall', 'id', 'trace', 'parent', 'flags', 'status', 'cpu', 'thread', 'steps', 'cut', 'open', 'logs',
        'attributes', 'error', 'handled', 'body', 'slot', 'at', 'returned',
        'environ', 'start_response', 'answer', '__weakref__')

    def set_name(self, name):
        """The name that transactions are grouped by: a route template."""
        if name is self.name or self.state != LIVE:
            return
        try:
            if type(name) is not str:
                name = _exact(name)
            self.name = name
            at = self.at
            if at >= 0:
                ring = self.ring
                version = ring.versions[self.slot] - 1
                label = _methods[self.method] + _texts[name][2:]
                size = len(label)
                ring.memory[at:at + 112] = _slot_name(
                    version | (size << 32 if size < 68 else _LONGEST), self.id, self.wall, self.thread, label, version,
                    0)[:112]
        except BaseException:
            if not guard.ours():
                raise

    def set_user(self, user):
        """Who the request was for, as text."""
        self.user = user

    def set(self, key, value):
        """Adds an attribute."""
        pairs = self.attributes
        if pairs is None:
            pairs = self.attributes = []
        if len(pairs) < MAX_ATTRIBUTES:
            pairs.append((key, value))

    def fail(self, kind, error, trace):
        """Remembers why this transaction failed. The first one wins."""
        if self.error is None and self.state == LIVE:
            try:
                self.error = errors.describe(kind, error, trace)
            except BaseException:
                if not guard.ours():
                    raise

    def handle(self, kind, error, trace):
        """Remembers an exception that the framework made an answer of: the error if the answer is a 5xx, else a step."""
        if self.handled is None and self.state == LIVE:
            try:
                self.handled = (errors.describe(kind, error, trace), clock())
            except BaseException:
                if not guard.ours():
                    raise

    def end(self, status=0):
        """Ends it: one frame. Idempotent."""
        if self.state != LIVE:
            return
        try:
            ring = self.ring
            if not ring.alive[0]:
                # Begun by the parent of this forked child: it is the parent's.
                self.state = ENDED
                _set(None)
                return
            body = self.body
            if body is None:
                body = self.body = _encode(self, status)
            ring.end(body)
            self.state = ENDED
            slot = self.slot
            if slot >= 0:
                self.slot = -1
                words = ring.words32
                at = self.at >> 2
                words[at] = words[at + 27] = ring.versions[slot]
                ring.free.append(slot)
            if _get() is self:
                _set(None)
            self.body = self.environ = None
            if self.answer is not None:
                self.start_response = None
            ring.drain()
        except BaseException:
            # Whatever came between: finish, then let through what is not ours.
            mine = guard.ours()
            _end_after_all(self)
            if not mine:
                raise

    # -- a WSGI response

    def respond(self, status, headers, *more):
        """The start_response that the application gets: the server's, with a look at the status."""
        self.answer = status
        return self.start_response(status, headers, *more)

    def finish(self):
        """Ends it with the status that the application answered."""
        if self.state == LIVE:
            self.end(_codes.get(self.answer) or _code(self.answer))

    # -- steps

    def sql(self, statement, system, target):
        """Begins a SQL step."""
        return _step(self, SQL, 2, statement, system, target, None)

    def fetch(self, statement, system, target):
        """Begins the fetching of a statement's rows."""
        return _step(self, FETCH, 2, statement, system, target, None)

    def http(self, method, url, target):
        """Begins an outgoing HTTP call. `url` without user information and query."""
        step = _step(self, HTTP, 3, url, method, target, None)
        if step is not NO_STEP:
            step.span_id = _random(64) or 1
        return step

    def dbc(self, target, system):
        """Begins a connection to a database."""
        return _step(self, DBC, 4, target, system, None, None)

    def call(self, name):
        """Begins a method step."""
        return _step(self, METHOD, 1, name, None, None, None)

    def log(self, severity, level, logger, message):
        """A log record, with OpenTelemetry's severity number."""
        if self.logs >= MAX_LOGS:
            self.cut += 1
            return
        self.logs += 1
        _point(self, LOG, severity, message, logger, level, None)

    def message(self, title, text):
        """A remark."""
        _point(self, MESSAGE, 0, title, text, None, None)

    def traceparent(self, span=None):
        """The W3C header that names this transaction, or one of its calls, as the caller."""
        return '00-%s-%016x-%02x' % (_trace_text(self), span or self.id, 1 if self.flags & wire.FLAG_SAMPLED or not self.parent else 0)

    def trace_id(self):
        """32 hex digits."""
        return _trace_text(self)


class Step(object):
    """Something that a transaction is doing. Made by a transaction's methods only."""

    __slots__ = ('tx', 'kind', 'a', 'b', 'c', 'd', 'start', 'duration', 'value', 'flags', 'parent', 'index', 'span_id', 'repeat')

    def end(self, value=0, error=None):
        """`value`: rows or status. `error`: the exception, which is not kept. Idempotent."""
        tx = self.tx
        if tx is None:
            return
        try:
            self.tx = None
            if tx.state != LIVE:
                return
            self.duration = clock() - self.start
            if value is not None:
                self.value = value
            if error is not None:
                self.flags |= wire.STEP_FAILED
                self.d = errors.short(error)
            if tx.open == self.index + 1:
                tx.open = _still_open(tx, self.parent)
            at = tx.at
            if at >= 0 and tx.ring.alive[0]:
                tx.ring.memory[at + 112] = _IDLE
        except BaseException:
            if not guard.ours():
                raise

    def traceparent(self):
        """The header for the peer: this step is the caller."""
        tx = self.tx
        return tx.traceparent(self.span_id) if tx is not None else None


class _NoStep(object):
    """Beyond the limit of steps: nothing is recorded."""

    __slots__ = ()
    span_id = 0
    tx = None

    def end(self, value=0, error=None):
        """Nothing."""

    def traceparent(self):
        """No header."""
        return None


NO_STEP = _NoStep()
_IDLE = b'\0' if PY2 else 0

# Set from the options: None = nothing to do.
ignored = None
client_of = None
measure_cpu = False
error_from = 500


def _choose(options):
    """Decides once what each option means for the requests to come."""
    global ignored, client_of, measure_cpu, error_from, MAX_STEPS
    paths = options['trace_ignore_url_set']
    ignored = _ignoring(
        frozenset([path for path in paths if '*' not in path]), [path.split('*') for path in paths if '*' in path],
        tuple(options['trace_ignore_url_prefix']), tuple(options['web_static_content_extensions']),
        frozenset(options['ignore_http_method']))
    proxies = frozenset(options['trusted_proxies'])
    client_of = _behind(proxies, options['trace_http_client_ip_header_key']) if proxies else None
    measure_cpu = bool(options['trace_cpu'] and cpu_clock)
    error_from = 400 if options['transaction_status_error_enable'] else 500
    MAX_STEPS = options['profile_step_max_count']


def _ignoring(paths, patterns, prefixes, extensions, methods):
    extensions = tuple(['.' + extension for extension in extensions])
    if not (paths or patterns or prefixes or extensions or methods):
        return None

    def is_ignored(method, path):
        if type(path) not in _TEXTS:
            return False
        if extensions and '.' in path and path.endswith(extensions):
            return True
        return (path in paths or method in methods or bool(prefixes) and path.startswith(prefixes)
                or bool(patterns) and any([_matches(path, pattern) for pattern in patterns]))
    if paths or patterns or prefixes or methods:
        return is_ignored

    def is_static(method, path):
        return '.' in path and type(path) in _TEXTS and path.endswith(extensions)
    return is_static


_TEXTS = (str, text_type)


def _matches(path, parts):
    """Whether a path is these parts with anything between them."""
    if not path.startswith(parts[0]) or not path.endswith(parts[-1]) or len(path) < len(parts[0]) + len(parts[-1]):
        return False
    at, end = len(parts[0]), len(path) - len(parts[-1])
    for part in parts[1:-1]:
        at = path.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _behind(proxies, header):
    key = 'HTTP_' + header.upper().replace('-', '_')

    def client_of(peer, get):
        """The client's address as a trusted proxy says: the last one in the list that is not a trusted proxy."""
        if peer not in proxies:
            return peer
        said = get(key)
        if type(said) not in _TEXTS:
            return peer
        for address in reversed(said[-1024:].split(',')):
            address = address.strip()
            if address and address not in proxies:
                return address[:64]
        return peer
    return client_of


# -- private

def _step(tx, kind, state, a, b, c, d):
    try:
        steps = tx.steps
        index = len(steps)
        if index >= MAX_STEPS or tx.state != LIVE:
            tx.cut += 1
            return NO_STEP
        step = Step()
        step.tx = tx
        step.kind = kind
        step.a = a
        step.b = b
        step.c = c
        step.d = d
        step.flags = step.span_id = 0
        step.value = -1 if kind == SQL else 0
        step.repeat = 1
        step.parent = tx.open
        step.index = index
        step.duration = 0
        steps.append(step)
        if kind == METHOD:
            # The others have no steps below them, and run side by side in tasks and threads.
            tx.open = index + 1
        step.start = now = clock()
        at = tx.at
        if at >= 0 and tx.ring.alive[0]:
            text = _prefix(a)
            tx.ring.memory[at + 112:at + 192] = _slot_state(
                state, len(text), index & 0xffff, _bounded((now - tx.start) // 1000000), text)
            if tx.ring.memory[rings.STACK_WANTED_AT + tx.slot] != _IDLE:
                _take_stack(tx)
        return step
    except BaseException:
        if not guard.ours():
            raise
        return NO_STEP


def _still_open(tx, parent):
    """The next step outwards that has not ended: generators and tasks end in any order."""
    while parent and tx.steps[parent - 1].tx is None:
        parent = tx.steps[parent - 1].parent
    return parent


def _point(tx, kind, value, a, b, c, d):
    """A step without a duration."""
    try:
        if len(tx.steps) >= MAX_STEPS or tx.state != LIVE:
            tx.cut += 1
            return
        now = clock()
        tx.steps.append(_encoded(kind, 0, tx.open, now - tx.start, 0, value, 1, 0, a, b, c, d))
    except BaseException:
        if not guard.ours():
            raise


def _take_stack(tx):
    """The collector wants to know where this transaction is."""
    tx.flags |= wire.FLAG_STACKS
    stack = errors.stack_of(sys._getframe(2))
    tx.steps.append(_encoded(wire.STACK, 0, tx.open, clock() - tx.start, 0, 0, 1, 0, stack, None, None, None))


def _end_after_all(tx):
    """The end was interrupted, or failed: once more, without doing anything twice."""
    try:
        ring = tx.ring
        body = tx.body
        if tx.state == LIVE:
            if body is None:
                next(rings.zip(ring.published, ring.lost_encode))
            elif not ring.holds(body):
                ring.end(body)
            tx.state = ENDED
        slot = tx.slot
        if slot >= 0:
            tx.slot = -1
            words = ring.words32
            at = tx.at >> 2
            words[at] = words[at + 27] = ring.versions[slot]
            ring.free.append(slot)
        if _get() is tx:
            _set(None)
        tx.body = tx.environ = None
        ring.drain()
    except BaseException:
        if not guard.ours():
            raise


def _encode(tx, status):
    """The frame of a transaction, without its place: (bytes from 32 on, flags)."""
    now = clock()
    texts = _texts
    flags = tx.flags
    if not status:
        status = tx.status
    elif type(status) is not int or not 0 < status <= 0xffff:
        status = 0
    error = tx.error
    if tx.handled is not None:
        if error is None and (status >= 500 or status == 0):
            error = tx.handled[0]
        else:
            _error_step(tx)
    if error is not None or status >= error_from:
        flags |= wire.FLAG_ERROR
    path = tx.path
    path_text = texts[path]
    name = tx.name
    if error is None and tx.user is None and tx.tracestate is None and tx.attributes is None:
        head = b''.join((path_text if name is path else texts[name], texts[tx.method], path_text, texts[tx.host],
                         texts[tx.client], texts[tx.agent], texts[tx.referer], _NOTHING_ELSE))
        size = len(head) - 2
        attributes = None
    else:
        head = b''.join((texts[name], texts[tx.method], path_text, texts[tx.host], texts[tx.client], texts[tx.agent],
                         texts[tx.referer], wire.text(tx.user), error or _NO_ERROR, wire.text(tx.tracestate)))
        size = len(head)
        attributes = wire.attributes(tx.attributes)
    steps = tx.steps
    counts = 0
    if steps or tx.cut:
        data, counts = _encode_steps(tx, steps, now, MAX_BODY - len(head) - len(attributes or b''))
        head = head + data if attributes is not None else head[:-2] + data + _EMPTY
        size |= len(data) << 32
    if attributes is not None:
        head += attributes
    duration = (now - tx.start) // 1000
    identity = tx.id
    if tx.trace is None:
        trace_a, trace_b = _random(64), identity
    else:
        trace_a, trace_b = tx.trace
    return _frame(
        identity, trace_a, trace_b, tx.parent, tx.wall, duration if duration > 0 else 0,
        (_cpu_since(tx.cpu) if tx.cpu else _NO_CPU) | status << 32 | tx.kind << 48, counts, tx.thread, size, 12) + head, flags


# A frame is at most a quarter of a ring.
MAX_BODY = 65536 - wire.FIXED_BYTES - 8
_NO_ERROR = _EMPTY * 3


def _encode_steps(tx, steps, now, room):
    """The steps that fit, and the word that holds how many there are and how many were cut."""
    parts = [step if type(step) is bytes else _finished(tx, step, now) for step in steps]
    data = b''.join(parts)
    if len(data) > room:
        kept = 0
        for part in parts:
            room -= len(part)
            if room < 0:
                break
            kept += 1
        tx.cut += len(parts) - kept
        del parts[kept:]
        data = b''.join(parts)
    cut = tx.cut
    if cut:
        for _ in range(min(cut, MAX_COUNTED)):
            tx.ring.steps_cut()
    return data, len(parts) | min(cut, 0xffffffff) << 32


MAX_COUNTED = 100000


def _error_step(tx):
    """A handled exception whose answer was no server error."""
    failure, when = tx.handled
    if len(tx.steps) >= MAX_STEPS:
        tx.cut += 1
        return
    tx.steps.append(wire.step(ERROR, 0, 0, _micros(when - tx.start), 0, 0, 1, 0, failure + _EMPTY))


def _finished(tx, step, now):
    if step.tx is not None:
        # Still running: a thread of the transaction's, or a response that nobody closed.
        step.tx = None
        step.duration = now - step.start
    return _encoded(step.kind, step.flags, step.parent, step.start - tx.start, step.duration, step.value, step.repeat,
                    step.span_id, step.a, step.b, step.c, step.d)


def _encoded(kind, flags, parent, start, duration, value, repeat, span, a, b, c, d):
    text = wire.text
    tail = text(a) + text(b) + text(c) + text(d)
    return wire.step(kind, flags, parent, _micros(start), _micros(duration), _value(value), repeat, span, tail)


def _value(value):
    return value if type(value) in _INTS and -0x80000000 <= value < 0x80000000 else -1


_INTS = (int, type(1 << 62))


def _micros(nanoseconds):
    return _bounded(nanoseconds // 1000)


def _bounded(number):
    return 0 if number < 0 else number if number < 0xffffffff else 0xffffffff


def _cpu_since(start):
    used = (cpu_clock() - start) // 1000
    return used if 0 <= used < _NO_CPU else _NO_CPU


def _exact(value):
    """The value as plain text: a text of a class of its own might do anything when it is looked at."""
    if value is None or type(value) is str:
        return value
    data = wire.clean(value)
    return data if PY2 else data.decode('utf-8')


class _Methods(dict):
    """What stands before the name in a slot, by method."""

    __slots__ = ()

    def __missing__(self, method):
        data = wire.clean(method)[:16] + b' '
        if len(self) < 50:
            self[method] = data
        return data


_methods = _Methods({None: b''})
_LONGEST = 68 << 32


def _code(line):
    """The number of a status line."""
    code = int(line[:3]) if type(line) is str and line[:3].isdigit() else 0
    if code and len(_codes) < MAX_CODES:
        _codes[line] = code
    return code


_codes = {}
MAX_CODES = 500


def _trace_text(tx):
    trace = tx.trace
    if trace is None:
        # The second half of an own trace id is the transaction's id: more random bits would say nothing more.
        trace = tx.trace = _random(64), tx.id
    return ''.join(['%02x' % byte for byte in bytearray(_two_numbers.pack(*trace))])


def _prefix(value):
    if type(value) is text_type or type(value) is bytes:
        value = value[:72]
    return wire.clean(value)[:72]


def _abandoned(tx):
    """Whether the context's transaction is over though nobody ended it; if so it is ended now.

    Either its response has been returned and nobody closed it, or a signal handler's exception came between.
    `returned` is None where a coroutine ends the transaction: it need not be on the stack.
    """
    if not tx.returned:
        if tx.returned is None or tx.kind != WEB or tx.thread != get_ident() or _on_stack(tx, sys._getframe(2)):
            return False
    tx.end(tx.status)
    return True


def _on_stack(tx, frame):
    """Whether one of our own callers works for this transaction."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(guard.HERE) and frame.f_locals.get('tx') is tx:
            return True
        frame = frame.f_back
    return False


def _forked():
    """A child makes everything its own: ring, identities. What its parent began stays with the parent."""
    global _ring, _random
    _random = Random(random_seed()).getrandbits
    _ring = ring = rings.Ring()
    return ring


def _follow(tx, traceparent, tracestate):
    """Takes the caller's trace over. Any other text is ignored and counted."""
    try:
        if type(traceparent) is not str or not 55 <= len(traceparent) <= 256:
            raise ValueError
        parts = traceparent.split('-', 4)
        version, trace, span, flags = parts[:4]
        if len(version) != 2 or len(trace) != 32 or len(span) != 16 or len(flags) != 2 or version == 'ff':
            raise ValueError
        if version == '00' and len(parts) != 4 or not _HEX.issuperset(version + trace + span + flags):
            raise ValueError
        parent = int(span, 16)
        data = bytes(bytearray.fromhex(trace if not PY2 else text_type(trace)))
        if parent == 0 or data == _NO_TRACE:
            raise ValueError
    except ValueError:
        global bad_traceparents
        bad_traceparents += 1
        return
    tx.trace = _two_numbers.unpack(data)
    tx.parent = parent
    tx.flags = wire.FLAG_REMOTE_PARENT | (wire.FLAG_SAMPLED if int(flags, 16) & 1 else 0)
    if type(tracestate) is str:
        tx.tracestate = tracestate[:MAX_TRACESTATE]


bad_traceparents = 0
_HEX = frozenset('0123456789abcdef')
_NO_TRACE = b'\0' * 16

guard.on_failure = lambda: _ring.failures()
_launch.listeners.append(_choose)
_choose(_launch.options)


def _leave_process():
    try:
        _ring.leave()
    except BaseException:
        if not guard.ours():
            raise


at_exit(_leave_process)
