"""The transaction of the calling context, its steps, and their way into the ring.

Nothing here raises into the application: a fault of ours ends in None or in nothing, everything else that
passes through is the application's (see guard.py).
"""
import sys

from . import _launch, errors, guard, ring as rings, wire
from ._compat import PY2, hexadecimal, Random, at_exit, clock, context_variable, cpu_clock, get_ident, random_seed, text as text_type
from ._compat import Struct, map, zip
from .wire import DBC, ERROR, FETCH, FUNCTION, HTTP, LOG, MESSAGE, METHOD, OTHER, SQL, TASK, WEB  # noqa: F401

MAX_STEPS = 1000
MAX_ATTRIBUTES = 64
MAX_LOGS = 100
MAX_TRACESTATE = 512

LIVE, ENDED = 1, 2

_ring = rings.Ring()
_random = Random(random_seed()).getrandbits
# Half of every trace id that begins here; the other half is the transaction's id.
_process = _random(64)
_context = context_variable('whatap')
_get = _context.get
_set = _context.set
# The transaction that the whole program is, if it is one.
whole = None

# Fixed layouts, packed as few wide numbers. In an application each instruction of ours runs cold, so that the number
# of instructions counts, more than what a call into C does.
_slot_name = Struct('<IIQQQ8x68sQI').pack  # version; length; id; wall; thread; name; version and state; time of state
_slot_state = Struct('<BBHI72s').pack
_frame = Struct('<11Q').pack  # id; trace; parent; wall; duration; cpu, status and type; counts; thread; lengths; texts
_two_numbers = Struct('<QQ')
_texts = wire.texts
_text_of = _texts.__getitem__
_join = b''.join
_EMPTY = wire.EMPTY
_NO_CPU = wire.NO_CPU
_PLAIN = frozenset((str, type(None)))


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
    return begin_with((method, '' if path is None else path, host, client, user_agent, referer), None, traceparent,
                      tracestate, kind)


def begin_with(request, environ=None, traceparent=None, tracestate=None, kind=WEB):
    """The same for a tuple of method, path, host, client, user agent and referer, and a WSGI environment."""
    made = None
    try:
        ring = _ring
        if not ring.alive[0]:
            ring = _forked()
        if ring.words[12] != ring.control and not ring.attend():
            return None
        tx = _get()
        if tx is not None and tx.state == LIVE and tx.ring is ring and (
                environ is not None and tx.environ is environ or not _abandoned(tx, kind)):
            return None
        if not _PLAIN.issuperset(map(type, request)):
            request = tuple([_exact(value) for value in request])
        path = request[1]
        label = _labels[request[0], path]
        if label is None:
            return None
        now = clock()
        if now > ring.renew_at:
            ring.renew(now)
        made = tx = Transaction()
        tx.ring = ring
        tx.environ = environ
        tx.request = request
        tx.name = path
        tx.kind = kind
        tx.steps = []
        tx.whole = False
        tx.open = 0
        tx.start = now
        tx.wall = wall = now // 1000 + ring.offset
        tx.id = identity = _random(64) or 1
        tx.thread = thread = get_ident()
        if traceparent is not None:
            _follow(tx, traceparent, tracestate if environ is None else environ.get('HTTP_TRACESTATE'))
        if measure_cpu:
            tx.cpu = cpu_clock()
            tx.special = True
        try:
            tx.slot = slot = ring.free.pop()
        except IndexError:
            tx.slot = None
        else:
            slot.version = version = slot.version + 2
            slot.whole[:] = _slot_name(version, len(label), identity, wall, thread, label, version, 0)
        tx.state = LIVE
        _set(tx)
        ring.begun()
        return tx
    except BaseException:
        mine = guard.ours()
        if made is not None:
            _take_back(made)
        if not mine:
            raise
        return None


def _take_back(tx):
    """The begin was interrupted: what is begun ends, and its place among the running ones is free again."""
    if getattr(tx, 'state', None) == LIVE:
        tx.end()
    elif getattr(tx, 'slot', None) is not None:
        slot, tx.slot = tx.slot, None
        slot.shown[0] = 0
        tx.ring.free.append(slot)


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
        'ring', 'state', 'environ', 'request', 'name', 'kind', 'steps', 'start', 'wall', 'id', 'thread', 'slot', 'body',
        'start_response', 'answer', 'whole', 'open', '__dict__', '__weakref__')

    # What most transactions do not have. `special` is set along with the ones that the frame needs.
    special = ignored = False
    returned = False
    status = parent = flags = cut = logs = cpu = 0
    trace = tracestate = user = attributes = error = handled = stacked = None
    about = wire.EMPTY  # attributes as they are in a frame

    method = property(lambda self: self.request[0])
    path = property(lambda self: self.request[1])

    def set_name(self, name):
        """The name that transactions are grouped by: a route template."""
        if type(name) is str and name == self.name or self.state != LIVE:
            return
        try:
            if type(name) is not str:
                name = _exact(name)
            self.name = name
            slot = self.slot
            if slot is not None:
                label = _label(self.request[0], name)
                slot.front[:] = _slot_name(slot.version, len(label), self.id, self.wall, self.thread, label, slot.version,
                                           0)[:112]
        except BaseException:
            if not guard.ours():
                raise

    def set_user(self, user):
        """Who the request was for, as text."""
        self.user = user
        self.special = True

    def set_function(self, name):
        """The function that serves it: the attribute `code.function.name`."""
        self.about = _abouts[name]

    def set(self, key, value):
        """Adds an attribute."""
        pairs = self.attributes
        if pairs is None:
            pairs = self.attributes = []
            self.special = True
        if len(pairs) < MAX_ATTRIBUTES:
            pairs.append((key, value[:MAX_VALUE] if type(value) is str else value))

    def fail(self, kind, error, trace):
        """Remembers why this transaction failed. The first one wins."""
        if self.error is None and self.state == LIVE:
            try:
                handled = self.handled
                self.special = True
                if errors.is_ignored(kind):
                    self.ignored = True
                elif handled is not None and handled[2] == (id(error), kind):
                    # The framework gave up on the exception that it has just tried to answer.
                    self.error = handled[0]
                else:
                    self.error = errors.describe(kind, error, trace)
            except BaseException:
                if not guard.ours():
                    raise

    def handle(self, kind, error, trace):
        """Remembers an exception that the framework made an answer of: the error if the answer is a 5xx, else a step."""
        if self.handled is None and self.state == LIVE:
            try:
                self.special = True
                if errors.is_ignored(kind):
                    self.ignored = True
                else:
                    self.handled = errors.describe(kind, error, trace), clock(), (id(error), kind)
            except BaseException:
                if not guard.ours():
                    raise

    def end(self, status=0):
        """Ends it: one frame. `status`: a number, or a WSGI status line. Idempotent."""
        if self.state != LIVE:
            return
        try:
            ring = self.ring
            if not ring.alive[0]:
                # Begun by the parent of this forked child: it is the parent's.
                self.state = ENDED
                _set(None)
                return
            if self.special:
                body = _encode(self, status)
            else:
                # What most transactions are, in as few instructions as can be; `_encode` does the same for all.
                head = _join(map(_text_of, (self.name,) + self.request))
                size = len(head) + 10
                steps = self.steps
                if steps:
                    try:
                        data = _join(steps)
                    except TypeError:
                        data = _join(_finished(self, steps))
                    counts = len(steps)
                    size |= len(data) << 32
                    tail = _FIVE_EMPTY + data + self.about
                else:
                    counts = 0
                    tail = _FIVE_EMPTY + self.about
                identity = self.id
                word, front = _status_words[self.kind, status or self.status]
                body = _frame(identity, _process, identity, 0, self.wall, (clock() - self.start) // 1000, word, counts,
                              self.thread, size, 12) + head + tail, front
                if size > MAX_PLAIN and len(body[0]) > MAX_BODY:
                    body = _encode(self, status)
            self.body = body
            slot = self.slot
            if slot is not None:
                slot.shown[0] = 0
                self.slot = None
                ring.free.append(slot)
            queue = ring.queue
            place = ring.place
            if queue or place is None:
                ring.put(self, body)
            else:
                # What `put` does when nothing waits. Counted and queued in one step that nothing can come between.
                queue.extend(zip((body,), ring.published))
                self.state = ENDED
                ring.move(queue, body, place)
            # It may stay in the context: what has ended is nobody's current transaction. It holds nothing then.
            self.environ = self.body = None
            self.steps = ()
        except BaseException:
            # Whatever came between: finish, then let through what is not ours.
            mine = guard.ours()
            _end_after_all(self)
            if not mine:
                raise

    # -- a WSGI response

    def respond(self, status, headers, *more):
        """The start_response that the application gets: the server's, with a look at the status."""
        self.answer = status if type(status) is str else _exact(status)
        return self.start_response(status, headers, *more)

    def finish(self):
        """Ends it with the status that the application answered."""
        self.end(self.answer)

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
            cut(self)
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
            slot = tx.slot
            if slot is not None and tx.ring.alive[0]:
                slot.doing[0] = _IDLE
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
_ignored = None
_static = ()
client_of = None
measure_cpu = False
error_from = 500


def _choose(options):
    """Decides once what each option means for the requests to come."""
    global _ignored, _static, client_of, measure_cpu, error_from, MAX_STEPS
    paths = options['trace_ignore_url_set']
    _ignored = _ignoring(
        frozenset([path for path in paths if '*' not in path]), [path.split('*') for path in paths if '*' in path],
        tuple(options['trace_ignore_url_prefix']), frozenset(options['ignore_http_method']))
    _static = tuple(['.' + extension for extension in options['web_static_content_extensions']])
    proxies = frozenset(options['trusted_proxies'])
    if not options['trace_user_enabled']:
        client_of = _nobody
    else:
        client_of = _behind(proxies, options['trace_http_client_ip_header_key']) if proxies else None
    measure_cpu = bool(options['trace_cpu'] and cpu_clock)
    _status_words.clear()
    _labels.clear()
    error_from = 400 if options['transaction_status_error_enable'] else 500
    MAX_STEPS = options['profile_step_max_count']


def _ignoring(paths, patterns, prefixes, methods):
    if not (paths or patterns or prefixes or methods):
        return None

    def ignored(method, path):
        return (path in paths or method in methods or bool(prefixes) and path.startswith(prefixes)
                or bool(patterns) and any([_matches(path, pattern) for pattern in patterns]))
    return ignored


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


def _nobody(peer, get):
    """Users are not told apart: no address is kept."""
    return None


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
            return cut(tx)
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
        step.start = now = clock()
        steps.append(step)
        if kind == METHOD:
            # The others have no steps below them, and run side by side in tasks and threads.
            tx.open = index + 1
        slot = tx.slot
        if slot is not None and tx.ring.alive[0]:
            text = _prefix(a)
            slot.doing[:] = _slot_state(
                state, len(text), index & 0xffff, _bounded((now - tx.start) // 1000000), text)
            if tx.ring.memory[slot.wanted_at] != _IDLE:
                _take_stack(tx)
        return step
    except BaseException:
        if not guard.ours():
            raise
        return NO_STEP


class Statements(dict):
    """What is the same in all steps with one statement of one database, made once: `statements[text]`.

    The step's first eight bytes; the rest of it from the repetitions on; state and length for the slot; its text there.
    """

    __slots__ = ('tail', 'target')

    def __init__(self, system, target):
        self.target = target
        self.tail = wire.text(system) + wire.text(target)

    def __missing__(self, statement):
        text = wire.text(statement)
        tail = text + self.tail + _EMPTY
        shown = text[2:74]
        made = wire.step_front(len(tail), SQL), wire.ONCE + tail, _shown(2, len(shown)), shown
        if len(text) <= MAX_STATEMENT and type(statement) is str:
            if len(self) >= MAX_STATEMENTS:
                self.clear()
            self[statement] = made
        return made


MAX_STATEMENT = 4000
MAX_STATEMENTS = 500
_databases = {}
MAX_DATABASES = 100


def statements_of(system, target):
    """The statements of a database, shared by all connections to it."""
    key = system, target
    found = _databases.get(key)
    if found is None:
        found = Statements(system, target)
        if len(_databases) < MAX_DATABASES:
            _databases[key] = found
    return found


def traced_execute(original):
    """For sqlite3's cursors, whose C code takes no time worth a step object: the method `(self, statement, ...)` with
    a step around it, which is recorded when it ends. The statements are those of `cursor.connection._whatap`."""
    def execute(self, *args):
        tx = _get()
        if tx is None or tx.state != LIVE:
            return original(self, *args)
        try:
            statement = args[0]
            front, back, state, text = self.connection._whatap[
                statement if type(statement) is str else _plain_text(statement)]
            started = clock()
            after = started - tx.start
            slot = tx.slot
            if slot is not None:
                slot.doing[:] = _leaf_state(state, 0, after // 1000000, text)
                if after > STACKS_FROM and tx.ring.memory[slot.wanted_at] != _IDLE:
                    _take_stack(tx)
        except BaseException:
            _unusual_execute()
            return original(self, *args)
        try:
            result = original(self, *args)
        except BaseException:
            _leaf(tx, back, after, started, -1, wire.STEP_FAILED, sys.exc_info()[1])
            raise
        try:
            steps = tx.steps
            if tx.open or tx.state != LIVE or len(steps) >= MAX_STEPS:
                _leaf(tx, back, after, started, self.rowcount, 0, None)
            else:
                steps.append(front + _leaf_times(after // 1000, (clock() - started) // 1000, self.rowcount) + back)
                if slot is not None:
                    slot.doing[0] = _IDLE
        except BaseException:
            if not guard.ours():
                raise
        return result
    return execute


def _leaf(tx, back, after, started, value, flags, error):
    """The end of a step that failed, lies below another one, or comes too late."""
    try:
        if tx.state != LIVE or len(tx.steps) >= MAX_STEPS:
            cut(tx)
            return
        if tx.slot is not None:
            tx.slot.doing[0] = _IDLE
        tail = back[12:]
        if error is not None:
            tail = tail[:-2] + wire.encode(errors.short(error))
        tx.steps.append(wire.step(SQL, flags, tx.open, _micros(after), _micros(clock() - started), _value(value), 1, 0, tail))
    except BaseException:
        if not guard.ours():
            raise


def _plain_text(value):
    return value if type(value) in _TEXTS else None


def _unusual_execute():
    """Inside an except block. A cursor that was never initialised, a call without a statement: the library will say so."""
    kind = sys.exc_info()[0]
    if not issubclass(kind, (AttributeError, IndexError)) and kind.__module__ != 'sqlite3' and not guard.ours():
        raise


# Only transactions that have been running for a while are asked for their stack.
STACKS_FROM = 100 * 1000000
_leaf_times = Struct('<IIi').pack
_leaf_state = Struct('<2sHI72s').pack
_shown = Struct('<BB').pack


def cut(tx):
    """A step that is not recorded is counted."""
    if tx.state == LIVE:
        tx.cut += 1
        tx.special = True
    else:
        tx.ring.steps_cut()
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
            cut(tx)
            return
        now = clock()
        tx.steps.append(_encoded(kind, 0, tx.open, now - tx.start, 0, value, 1, 0, a, b, c, d))
    except BaseException:
        if not guard.ours():
            raise


def _take_stack(tx):
    """The collector wants to know where this transaction is: once for each number that it writes."""
    wanted = tx.ring.memory[tx.slot.wanted_at]
    if wanted != tx.stacked:
        add_stack(tx, wanted, errors.stack_of(sys._getframe(2)))


def add_stack(tx, number, stack):
    """Where a transaction was when it was asked with this number."""
    tx.stacked = number
    tx.flags |= wire.FLAG_STACKS
    tx.special = True
    tx.steps.append(_encoded(wire.STACK, 0, tx.open, clock() - tx.start, 0, 0, 1, 0, stack, None, None, None))


def _end_after_all(tx):
    """The end was interrupted, or failed: once more, without doing anything twice."""
    try:
        ring = tx.ring
        slot = tx.slot
        if slot is not None:
            slot.shown[0] = 0
            tx.slot = None
            ring.free.append(slot)
        body = getattr(tx, 'body', None)
        if tx.state == LIVE:
            if body is None:
                next(zip(ring.published, ring.lost_encode))
            elif not ring.holds(body):
                ring.queue.extend(zip((body,), ring.published))
            tx.state = ENDED
        tx.environ = tx.body = None
        tx.steps = ()
        ring.drain()
    except BaseException:
        if not guard.ours():
            raise


def _encode(tx, status):
    """The frame of any transaction, without its place: (bytes from 32 on, first word)."""
    status = status or tx.status
    word, front = _status_words[tx.kind, status]
    flags = front >> 32 | tx.flags
    error = tx.error
    if tx.handled is not None:
        if error is None and (flags & wire.FLAG_ERROR or not _number(status)):
            error = tx.handled[0]
        elif error is not tx.handled[0]:
            _error_step(tx)
    if error is not None:
        flags |= wire.FLAG_ERROR
    elif tx.ignored:
        flags &= ~wire.FLAG_ERROR
    values = (tx.name,) + tx.request + (tx.user,)
    head = b''.join([wire.text(value) for value in values]) + (error or _NO_ERROR) + wire.text(tx.tracestate)
    if len(head) > MAX_HEAD:
        flags |= wire.FLAG_CUT
        head = b''.join([wire.text(_exact(value)[:MAX_LONG] if value is not None else None) for value in values]) + (
            error if error is not None and len(error) < MAX_HEAD // 2 else _NO_ERROR) + wire.text(tx.tracestate)
    attributes = wire.attributes(tx.attributes, tx.about)
    if len(attributes) > MAX_ATTRIBUTE_BYTES:
        flags |= wire.FLAG_CUT
        attributes = _EMPTY
    data, count = _encode_steps(tx, MAX_BODY - wire.FIXED_BYTES - len(head) - len(attributes))
    duration = (clock() - tx.start) // 1000
    trace_a, trace_b = tx.trace or (_process, tx.id)
    if tx.cpu:
        word = word & ~_NO_CPU | _cpu_since(tx.cpu)
    return _frame(
        tx.id, trace_a, trace_b, tx.parent, tx.wall, duration if duration > 0 else 0, word,
        count | min(tx.cut, 0xffffffff) << 32, tx.thread, len(head) | len(data) << 32, 12) + head + data + attributes, (
            wire.KIND | flags << 32)


# A frame, with its first 32 bytes, is at most a quarter of a ring.
MAX_BODY = 65536 - 32
MAX_HEAD = 36000
# Below this, the lengths of texts and (above 32 bits) of steps say that a frame is small enough.
MAX_PLAIN = 20000
MAX_LONG = 1000
MAX_ATTRIBUTE_BYTES = 16000
MAX_VALUE = 1000
_NO_ERROR = _EMPTY * 3
_FIVE_EMPTY = _EMPTY * 5


class _Abouts(dict):
    """Attribute parts by the name of a function."""

    __slots__ = ()

    def __missing__(self, name):
        about = wire.attributes([('code.function.name', name[:MAX_VALUE])])
        if len(self) < 1000:
            self[name] = about
        return about


_abouts = _Abouts()


class _StatusWords(dict):
    """By type and status: the word of a frame that holds no CPU time, the status and the type; the first word of a
    frame, with the flags that the status sets."""

    __slots__ = ()

    def __missing__(self, key):
        kind, status = key
        number = _number(status)
        flags = wire.FLAG_ERROR if number >= error_from else 0
        found = _NO_CPU | number << 32 | kind << 48, wire.KIND | flags << 32
        if type(status) in (int, str) and len(self) < 1000:
            self[key] = found
        return found


def _number(status):
    """A status as a number, of a number or a status line; 0 if it is neither."""
    if isinstance(status, int):
        return int(status) if 0 < status <= 0xffff else 0
    if type(status) is str and len(status) >= 3 and status[:3].isdigit():
        return int(status[:3])
    return 0


_status_words = _StatusWords()


def _encode_steps(tx, room):
    """The steps that fit, and how many they are."""
    parts = _finished(tx, tx.steps)
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
    for _ in range(min(tx.cut, MAX_COUNTED)):
        tx.ring.steps_cut()
    return data, len(parts)


MAX_COUNTED = 100000


def _finished(tx, steps):
    """All steps as bytes. Those that still run, in a thread of the transaction's or below a response that nobody
    closed, end now."""
    now = clock()
    parts = []
    for step in steps:
        if type(step) is not bytes:
            if step.tx is not None:
                step.tx = None
                step.duration = now - step.start
            step = _encoded(step.kind, step.flags, step.parent, step.start - tx.start, step.duration, step.value,
                            step.repeat, step.span_id, step.a, step.b, step.c, step.d)
        parts.append(step)
    return parts


def _error_step(tx):
    """A handled exception whose answer was no server error."""
    failure, when, _ = tx.handled
    if len(tx.steps) >= MAX_STEPS:
        cut(tx)
        return
    tx.steps.append(wire.step(ERROR, 0, 0, _micros(when - tx.start), 0, 0, 1, 0, failure + _EMPTY))


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


def _label(method, name):
    """Method and name as a slot shows them."""
    if method is None:
        return wire.clean(name)[:68]
    return (wire.clean(method)[:16] + b' ' + wire.clean(name))[:68]


class _Labels(dict):
    """What a slot shows, by method and path; None for requests that are not traced."""

    __slots__ = ()

    def __missing__(self, key):
        method, path = key
        label = _label(method, path)
        if method is not None and ('.' in path and _static and path.endswith(_static)
                                   or _ignored is not None and _ignored(method, path)):
            label = None
        if len(self) >= 1000:
            self.clear()
        if len(path) <= 500:
            self[key] = label
        return label


_labels = _Labels()


def _trace_text(tx):
    trace = tx.trace or (_process, tx.id)
    return hexadecimal(_two_numbers.pack(*trace))


def _prefix(value):
    if type(value) is text_type or type(value) is bytes:
        value = value[:72]
    return wire.clean(value)[:72]


def _abandoned(tx, kind):
    """Whether the context's transaction is over though nobody ended it; if so it is ended now.

    Either its response has been returned and nobody closed it, or a signal handler's exception came between.
    `returned` is None where a coroutine ends the transaction: it need not be on the stack.
    """
    if tx is whole and kind == WEB:
        # A request inside a program that is one transaction: it is one of its own, and the program's goes on.
        return True
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
    global _ring, _random, _process
    _random = Random(random_seed()).getrandbits
    _process = _random(64)
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
    tx.special = True
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
