"""Exceptions as text: class, message, stack with source lines, causes. Nothing of the exception is kept.

No method of the application's classes is called: a message is made of the exception's arguments as far as
they are plain values.
"""
import sys

from . import _launch, guard, wire
from ._compat import PY2, integers

MAX_CAUSES = 5
MAX_SOURCE_LINE = 200
MAX_SOURCE_FILE = 2 * 1024 * 1024
MAX_SOURCE_LINES = 2000

# A stack's lines by where a frame is: a code object, by its address, and the instruction in it. To hash the object itself
# takes longer than all else, and finding the line's number is slow, too. Our own frames are empty lines. The list keeps the
# code objects, so that their addresses stay theirs; both are replaced together.
_lines = {}, []

# Set from the options: how many frames a stack keeps, and the names of exceptions that are no failures.
error_frames = 50
running_frames = 50
_ignored = frozenset()


def _choose(options):
    global error_frames, running_frames, _ignored
    error_frames = options['trace_error_callstack_depth']
    running_frames = options['trace_active_callstack_depth']
    _ignored = frozenset(options['ignore_exceptions'])


_launch.listeners.append(_choose)
_choose(_launch.options)


def is_ignored(kind):
    """Whether the options say that this class of exceptions, or one that it is derived from, is no failure. They name it with
    or without its module."""
    if not _ignored:
        return False
    try:
        kinds = type.__dict__['__mro__'].__get__(kind)
    except TypeError:
        kinds = (kind,)
    for each in kinds:
        name = class_name(each)
        if name in _ignored or name.rpartition('.')[2] in _ignored:
            return True
    return False


def describe(kind, error, trace):
    """The three texts of an error, encoded: class, message, stack."""
    stack = _stack(error, trace)
    return wire.encode(class_name(kind)) + wire.encode(message(error)) + wire.encode(stack)


def short(error):
    """`class: message` of an exception."""
    return _utf8(class_name(type(error))) + b': ' + wire.clean(message(error))


def class_name(kind):
    """With its module, unless that is the builtin one."""
    try:
        module = type.__getattribute__(kind, '__module__')
        name = type.__getattribute__(kind, '__name__' if PY2 else '__qualname__')
    except (AttributeError, TypeError):
        return '?'
    if type(module) is not str or module in ('builtins', 'exceptions', '__main__'):
        return name
    return module + '.' + name


def message(error):
    """What `str(error)` would most likely say."""
    try:
        values = BaseException.args.__get__(error)
    except (AttributeError, TypeError):
        return ''
    if type(values) is not tuple or not values:
        return ''
    if isinstance(error, EnvironmentError) and 2 <= len(values) <= 5 and type(values[0]) in integers:
        return _os_message(values)
    if len(values) == 1:
        return _plain(values[0])
    return b'(' + b', '.join([_plain(value) for value in values[:10]]) + b')'


def _os_message(values):
    named = [value for value in values[2:3] if value is not None]
    said = b'[Errno ' + _plain(values[0]) + b'] ' + _plain(values[1])
    return said + b': ' + _plain(named[0]) if named else said


def _plain(value):
    return wire.clean(value)


def stack_of(frame):
    """The stack of a running frame, innermost last."""
    found = []
    while frame is not None and len(found) < running_frames:
        line = _line(frame.f_code, frame.f_lasti, frame.f_lineno)
        if line:
            found.append(line)
        frame = frame.f_back
    found.reverse()
    return b''.join(found)


def _stack(error, trace):
    parts = [_frames(trace)]
    seen = [error]
    while len(seen) <= MAX_CAUSES:
        cause = _cause(error)
        if cause is None or any([cause is earlier for earlier in seen]):
            break
        seen.append(cause)
        closing = b'cause\0' + _one_line(class_name(type(cause))) + b'\0' + _one_line(message(cause)) + b'\n'
        parts.append(_frames(BaseException.__dict__['__traceback__'].__get__(cause)) + closing)
        error = cause
    del error, seen, trace
    parts.reverse()
    return b''.join(parts)


def _cause(error):
    if PY2:
        return None
    try:
        own = BaseException.__dict__
        cause = own['__cause__'].__get__(error)
        if cause is None and not own['__suppress_context__'].__get__(error):
            cause = own['__context__'].__get__(error)
        return cause
    except (KeyError, AttributeError, TypeError):
        return None


def _frames(trace):
    known = _lines[0]
    found = []
    at = trace
    try:
        while at is not None:
            found.append(known[id(at.tb_frame.f_code), at.tb_lasti])
            at = at.tb_next
        if len(found) <= error_frames:
            return b''.join(found)
    except KeyError:
        pass  # new ones
    return b''.join([_line(*place) for place in _places(trace)])


def _places(trace):
    """Code, instruction and line number of the frames to keep: the outermost and the innermost ones say most."""
    found = []
    while trace is not None:
        place = trace.tb_frame.f_code, trace.tb_lasti, trace.tb_lineno
        if not place[0].co_filename.startswith(guard.HERE):
            found.append(place)
            if len(found) > error_frames:
                del found[error_frames // 2]
        else:
            _line(*place)
        trace = trace.tb_next
    return found


def _line(code, instruction, number):
    """One line of a stack, from memory if it can be."""
    global _lines
    lines, codes = _lines
    line = lines.get((id(code), instruction))
    if line is None:
        name = code.co_filename
        if name.startswith(guard.HERE):
            line = b''
        else:
            line = b'\0'.join([_one_line(name), str(number).encode('ascii'), _one_line(code.co_name), _source(name, number)]) + b'\n'
        if len(codes) >= MAX_SOURCE_LINES:
            _lines = lines, codes = {}, []
        codes.append(code)
        lines[id(code), instruction] = line
    return line


def _one_line(value):
    return _utf8(value).replace(b'\n', b' ').replace(b'\0', b' ')


def _utf8(value):
    return wire.clean(value)


def _source(name, number):
    """The source line, from linecache if the program has it, else from the file."""
    cache = sys.modules.get('linecache')
    try:
        known = cache.cache.get(name) if cache is not None and type(cache.cache) is dict else None
        if type(known) is tuple and len(known) == 4 and type(known[2]) is list:
            line = known[2][number - 1] if 0 < number <= len(known[2]) else ''
        else:
            line = _read_line(name, number)
    except (OSError, IOError, AttributeError, ValueError, TypeError, IndexError):
        return b''
    return _one_line(line.strip())[:MAX_SOURCE_LINE]


def _read_line(name, number):
    if name[:1] == '<':
        return b''
    with open(name, 'rb', 0) as source:
        data = source.read(MAX_SOURCE_FILE)
    at = 0
    for _ in range(number - 1):
        at = data.find(b'\n', at) + 1
        if at == 0:
            return b''
    end = data.find(b'\n', at)
    return data[at:end if end >= 0 else len(data)][:1000]
