"""`logging`: what a transaction logged, from the level of `trace_logging_level` on.

Looked at after the application's own handlers have run: a formatter has usually rendered the message by then. If none has, it is
put together from builtin values only; no method of the application's objects is called a second time.
"""
from .. import errors
from .._launch import options
from ..guard import guarded
from ..hooks import wrap
from ..tx import current

LEVELS = {'DEBUG': 10, 'INFO': 20, 'WARNING': 30, 'ERROR': 40, 'CRITICAL': 50}
MAX_MESSAGE = 10000

_TEXT = (str, type(u''))
_PLAIN = (str, type(u''), bytes, int, float, bool, type(None), type(1 << 62))


def instrument(module):
    if options['trace_logging_enabled']:
        wrap(module.Logger, 'callHandlers', traced_call_handlers)


def traced_call_handlers(call_handlers):
    def wrapper(self, record):
        result = call_handlers(self, record)
        tx = current()
        if tx is not None:
            note(tx, record)
        return result
    return wrapper


@guarded
def note(tx, record):
    state = record.__dict__
    level = state.get('levelno')
    if type(level) is not int or level < LEVELS.get(options['trace_logging_level'], 30):
        return
    tx.log(severity(level), state.get('levelname'), state.get('name'), message(state))


def severity(level):
    """OpenTelemetry's number for a level of `logging`."""
    if level >= 50:
        return 21
    if level >= 40:
        return 17
    if level >= 30:
        return 13
    if level >= 20:
        return 9
    return 5 if level >= 10 else 1


def message(state):
    """Text of a record, with the exception that it carries."""
    text = state.get('message')
    if type(text) not in _TEXT:
        text = rendered(state.get('msg'), state.get('args'))
    text = text[:MAX_MESSAGE]
    trace = state.get('exc_text')
    info = state.get('exc_info')
    if type(trace) in _TEXT and trace:
        return text + '\n' + trace[-MAX_MESSAGE:]
    if type(info) is tuple and len(info) == 3 and info[1] is not None:
        return text + '\n' + error_text(info[1])
    return text


def rendered(pattern, arguments):
    """`pattern % arguments` without running code of the application's."""
    if type(pattern) not in _TEXT:
        return shown(pattern)
    if not arguments:
        return pattern
    try:
        if type(arguments) is tuple:
            return pattern % tuple([plain(value) for value in arguments])
        if type(arguments) is dict:
            return pattern % dict([(key, plain(value)) for key, value in arguments.items()])
    except (TypeError, ValueError, KeyError, OverflowError):
        pass  # `%d` of an object, say
    return pattern


def plain(value):
    if type(value) in _PLAIN:
        return value[:MAX_MESSAGE] if type(value) in _TEXT else value
    return shown(value)


def error_text(error):
    return errors.short(error).decode('utf-8', 'replace')


def shown(value):
    if isinstance(value, BaseException):
        return error_text(value)
    kind = type(value)
    return value if kind in _TEXT else '<' + kind.__name__ + '>'
