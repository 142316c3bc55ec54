"""What the options mean for the transactions to come, decided once for each change of them."""
from . import _launch, wire
from ._compat import cpu_clock, text as text_type

# None = nothing to do.
_ignored = None
_static = ()
client_of = None
measure_cpu = False
error_from = 500
max_steps = 1000
_TEXTS = (str, text_type)


def _choose(options):
    """Decides once what each option means for the requests to come."""
    global _ignored, _static, client_of, measure_cpu, error_from, max_steps
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
    status_words.clear()
    labels.clear()
    error_from = 400 if options['transaction_status_error_enable'] else 500
    max_steps = options['profile_step_max_count']


def _ignoring(paths, patterns, prefixes, methods):
    if not (paths or patterns or prefixes or methods):
        return None

    def ignored(method, path):
        return (path in paths or method in methods or bool(prefixes) and path.startswith(prefixes)
                or bool(patterns) and any([_matches(path, pattern) for pattern in patterns]))
    return ignored


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


class StatusWords(dict):
    """By type and status: the word of a frame that holds no CPU time, the status and the type; the first word of a
    frame, with the flags that the status sets."""

    __slots__ = ()

    def __missing__(self, key):
        kind, status = key
        number = status_number(status)
        flags = wire.FLAG_ERROR if number >= error_from else 0
        found = wire.NO_CPU | number << 32 | kind << 48, wire.KIND | flags << 32
        if type(status) in (int, str) and len(self) < 1000:
            self[key] = found
        return found


def status_number(status):
    """A status as a number, of a number or a status line; 0 if it is neither."""
    if isinstance(status, int):
        return int(status) if 0 < status <= 0xffff else 0
    if type(status) is str and len(status) >= 3 and status[:3].isdigit():
        return int(status[:3])
    return 0


status_words = StatusWords()


def label(method, name):
    """Method and name as a slot shows them."""
    if method is None:
        return wire.clean(name)[:68]
    return (wire.clean(method)[:16] + b' ' + wire.clean(name))[:68]


class Labels(dict):
    """What a slot shows, by method and path; None for requests that are not traced."""

    __slots__ = ()

    def __missing__(self, key):
        method, path = key
        shown = label(method, path)
        if method is not None and ('.' in path and _static and path.endswith(_static)
                                   or _ignored is not None and _ignored(method, path)):
            shown = None
        if len(self) >= 1000:
            self.clear()
        if len(path) <= 500:
            self[key] = shown
        return shown


labels = Labels()

_launch.listeners.append(_choose)
_choose(_launch.options)
