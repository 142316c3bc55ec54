"""Without a launcher: asks `whatap_python --ensure` for the launch value, if there is a sign of a home.

Only where somebody configured one: this file is on the path, and the environment names a home or, as a container's
does, the server or the licence. The answer is waited for as long as a start may take unnoticed, and longer only while the
helper is at work: on a machine so busy everything starts late. Then the interpreter goes on without tracing. A program
that asks for the tracer itself waits longer.
"""
import posix
import sys

from ._program import environment

WAIT = 0.030
# Then we look at the helper, again and again: it is given up when it was asleep so often in a row, and after this.
LOOK = 0.010
ASLEEP = 3
SLOW = 0.300
WAIT_WHEN_ASKED = 1.0
POLL = 0.001
MAX_ANSWER = 64 * 1024
PROGRAM = 'whatap_python'
SIGNS = ('WHATAP_HOME', 'WHATAP_CONFIG', 'WHATAP_LICENSE', 'WHATAP_SERVER_HOST', 'whatap_server_host')


def launch_value(asked=False, home=None):
    """The launch value, or None. `asked`: the program asks for the tracer itself. `home`: not the one of the
    environment."""
    if not asked and not any([environment(name) for name in SIGNS]):
        return None
    program = _program()
    if program is None:
        return None
    return _ask([program, '--ensure'] + (['--home', home] if home else []), WAIT_WHEN_ASKED if asked else WAIT)


def _program():
    """Where the collector's program is: with the package, beside the interpreter, on PATH."""
    here = __file__[:__file__.rindex('/')]
    places = [here + '/bin']
    if sys.executable and '/' in sys.executable:
        places.append(sys.executable[:sys.executable.rindex('/')])
    places.extend([place for place in (environment('PATH') or '').split(':') if place[:1] == '/'])
    for place in places:
        path = place + '/' + PROGRAM
        try:
            status = posix.stat(path)
        except OSError:
            continue
        if status.st_mode & 0o170000 == 0o100000 and posix.access(path, posix.X_OK):
            return path
    return None


def _ask(command, wait):
    """Runs it and reads its one line. The process is reaped by us, or by nobody the program knows."""
    from ._compat import clock, pause
    reading, writing = posix.pipe()
    try:
        child = posix.fork()
        if child == 0:
            _become(command, reading, writing)
    except OSError:
        posix.close(reading)
        posix.close(writing)
        return None
    posix.close(writing)
    until = clock() + int(wait * 1e9)
    latest = until + int(SLOW * 1e9)
    data = b''
    ended = False
    asleep = 0
    try:
        _nonblocking(reading)
        while len(data) < MAX_ANSWER:
            now = clock()
            if now >= until:
                asleep = 0 if _is_at_work(child) else asleep + 1
                if now >= latest or asleep == ASLEEP:
                    break
                until = now + int(LOOK * 1e9)
            try:
                more = posix.read(reading, MAX_ANSWER)
            except OSError:
                pause(POLL)
                continue
            if not more:
                ended = True
                break
            data += more
    finally:
        posix.close(reading)
        _reap(child, ended)
    line = data.partition(b'\n')[0]
    if not ended or not line:
        return None
    return line if str is bytes else line.decode('utf-8', 'replace')


def _is_at_work(child):
    """Whether the process runs, could run, waits for its disk, or has just ended with its answer unread."""
    try:
        number = posix.open('/proc/%d/stat' % child, posix.O_RDONLY)
        try:
            return posix.read(number, 512).rpartition(b') ')[2][:1] in (b'R', b'D', b'Z')
        finally:
            posix.close(number)
    except OSError:
        return False


def _become(command, reading, writing):
    """In the child: standard output is the pipe, the rest goes nowhere."""
    try:
        nowhere = posix.open('/dev/null', posix.O_RDWR)
        posix.dup2(writing, 1)
        posix.dup2(nowhere, 0)
        posix.dup2(nowhere, 2)
        posix.execv(command[0], command)
    finally:
        posix._exit(127)


def _reap(child, ended):
    from ._compat import pause
    for attempt in range(20 if ended else 1):
        try:
            if posix.waitpid(child, posix.WNOHANG)[0]:
                return
        except OSError:
            return
        pause(POLL)
    try:
        posix.kill(child, 9)
        posix.waitpid(child, 0)
    except OSError:
        pass


def _nonblocking(number):
    try:
        posix.set_blocking(number, False)
    except AttributeError:
        from . import _native
        fcntl = _native.load('fcntl')
        fcntl.fcntl(number, fcntl.F_SETFL, posix.O_NONBLOCK)
