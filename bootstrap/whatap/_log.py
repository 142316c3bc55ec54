"""A few lines per process in `<home>/logs/whatap-hook.log`: why there is no ring, and faults of ours that were
swallowed; more with the option `debug`. Loaded when there is something to say."""
import posix

from . import _launch
from ._compat import wall

MAX_LINES = 20
MAX_DETAILED_LINES = 1000
MAX_FILE = 10 * 1024 * 1024

_said = set()


def note(text):
    """Appends one line, each text once. Never raises, never waits, follows no link, writes into nobody else's directory."""
    directory = _launch.launch.logs if _launch.launch is not None else None
    if not directory or text in _said or len(_said) >= (MAX_DETAILED_LINES if _launch.options['debug'] else MAX_LINES):
        return
    _said.add(text)
    try:
        status = posix.lstat(directory)
        if status.st_mode & 0o170000 != 0o040000 or status.st_uid not in (posix.geteuid(), 0):
            return
        flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_NONBLOCK | 0o2000000
        number = posix.open(directory + '/whatap-hook.log', flags, 0o640)
        try:
            status = posix.fstat(number)
            if status.st_mode & 0o170000 == 0o100000 and status.st_size < MAX_FILE:
                line = '%d pid %d: %s\n' % (wall() // 1000000, posix.getpid(), text)
                posix.write(number, line.encode('ascii', 'replace'))
        finally:
            posix.close(number)
    except (OSError, IOError):
        pass


def faults(found):
    """Notes the faults that the guard has swallowed."""
    for fault in list(found):
        note('a fault of the tracer was swallowed: ' + fault)
