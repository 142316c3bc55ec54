"""What the launcher hands over, and the options: docs/protocol.md, section 1. The tracer parses no files."""
from ._options import DEFAULTS

VARIABLE = 'WHATAP_LAUNCH'
MAX_LAUNCH = 64 * 1024

# The options in force: the defaults, then the launch's, then what the collector wrote into the ring.
options = dict(DEFAULTS)
# Called with `options` whenever they have changed.
listeners = []


class Launch(object):
    """Where the instance is, and the launch's options."""

    __slots__ = ('name', 'token', 'home', 'bin', 'pid', 'logs', 'text')

    def __init__(self, text, pairs):
        self.text = text
        self.name = pairs.get('_name')
        self.token = pairs.get('_token')
        self.home = pairs.get('_home')
        self.bin = pairs.get('_bin')
        self.pid = pairs.get('_pid')
        self.logs = pairs.get('_hook') or (self.home and self.home + '/logs')


launch = None
# Whether the import hooks are in place: without a launch, decorators alone begin nothing.
installed = False


def take(text):
    """Puts a launch value in force. False if it is not one."""
    global launch
    pairs = parse(text)
    if pairs is None or not pairs.get('_name'):
        return False
    launch = Launch(text, pairs)
    change(pairs)
    return True


def parse(text):
    """The pairs of a launch value, or None."""
    if not text.startswith('1;') or len(text) > MAX_LAUNCH:
        return None
    pairs = {}
    for pair in text[2:].split(';'):
        if not pair:
            continue
        key, equals, value = pair.partition('=')
        value = unescape(value)
        if not equals or value is None:
            return None
        pairs[key[1:] if key[:1] in ('!', '?') else key] = value
    return pairs


def change(pairs):
    """Options by name, as text. What is unknown or does not fit stays as it was."""
    changed = []
    for key, text in sorted(pairs.items()):
        default = DEFAULTS.get(key)
        if default is None:
            continue
        value = typed(text, default)
        if value is not None and value != options[key]:
            options[key] = value
            changed.append('%s=%s' % (key, text))
    for listener in listeners:
        listener(options)
    if changed:
        detail('options: ' + ' '.join(changed))


def detail(text):
    """A line in the home's log, with the option `debug`."""
    if options['debug']:
        from . import _log
        _log.note(text)


def typed(text, default):
    """The text as a value of the default's type, or None."""
    if type(default) is bool:
        return {'true': True, 'false': False}.get(text)
    if type(default) is tuple:
        return tuple([part for part in text.split(',') if part])
    if type(default) in (int, float):
        try:
            return type(default)(text)
        except ValueError:
            return None
    return text


def unescape(text):
    """`%XX` resolved; None if an escape is broken."""
    if '%' not in text:
        return text
    parts = text.split('%')
    data = bytearray(parts[0].encode('utf-8') if type(parts[0]) is not bytes else parts[0])
    for part in parts[1:]:
        if len(part) < 2 or not _HEX.issuperset(part[:2]):
            return None
        data.append(int(part[:2], 16))
        data.extend(part[2:].encode('utf-8') if type(part) is not bytes else part[2:])
    data = bytes(data)
    return data if type(data) is str else data.decode('utf-8', 'replace')


def escape(text):
    """The value of a pair or of a message's key."""
    data = text if type(text) is bytes else text.encode('utf-8', 'replace')
    return ''.join([chr(byte) if 0x20 <= byte <= 0x7e and byte not in (0x25, 0x3b) else '%%%02X' % byte
                    for byte in bytearray(data)])


_HEX = frozenset('0123456789abcdefABCDEF')
