"""What happens in every interpreter at its start: little, and without importing what the program did not."""
import posix
import sys

from . import _launch

# Programs that live for a moment and serve nobody.
NOT_TRACED = frozenset((
    'pip', 'setuptools', 'easy_install', 'virtualenv', 'venv', 'ensurepip', 'compileall', 'py_compile', 'build', 'wheel',
    'twine', 'poetry', 'pipx', 'uv', 'conda', 'pydoc', 'idlelib', 'lib2to3', '2to3', 'whatap', 'whatap_python'))

# Seconds that the end of PID 1 waits for the collector.
EXIT_WAIT = 0.2

_started = False


def start(by_code=False, home=None):
    """Reads the launch and puts the import hooks in place. Idempotent. Whether the tracer is on."""
    global _started
    if _started:
        return True
    text = posix_environ('WHATAP_LAUNCH')
    if text is None:
        from . import _ensure
        text = _ensure.launch_value(by_code, home)
    if text is None or not _launch.take(text):
        return False
    options = _launch.options
    if not options.get('enabled', True) or not options.get('apm_enabled', True) or not _is_traced(options):
        return False
    _started = True
    from . import hooks
    hooks.install(options.get('ignore_instrumentation_set', ()))
    if posix.getpid() == 1:
        from ._compat import at_exit
        at_exit(_leave_pid_1)
    if options.get('standalone_enabled', False) and options['standalone_type'] != hooks.MULTIPLE and not by_code:
        from . import _standalone
        _standalone.begin(_arguments())
    return True


def _leave_pid_1():
    """The kernel ends everything with us, the collector too: it is asked to take and send what there is, also that of
    our workers."""
    if posix.getpid() == 1:
        from . import attach, guard
        try:
            attach.ask(b'drain\n', EXIT_WAIT)
        except BaseException:
            if not guard.ours():
                raise


def posix_environ(name):
    """A variable of this process's environment. `os` is loaded by then, but may not be imported by us on 2.7."""
    os = sys.modules.get('os')
    if os is not None:
        return os.environ.get(name)
    value = posix.environ.get(name if str is bytes else name.encode('ascii'))
    return value if value is None or str is bytes else value.decode('utf-8', 'surrogateescape')


def _is_traced(options):
    """The option trace_child_process: with `auto` package managers and the like are left alone."""
    choice = options.get('trace_child_process', 'auto')
    if choice == 'always':
        return True
    if choice == 'never':
        return _launch.launch.pid == str(posix.getpid())
    return not NOT_TRACED.intersection(_program_names())


def _program_names():
    """What this interpreter was told to run: the script's name, or the module of `-m`."""
    is_module, program = what_runs(_arguments())
    # pip3, pip3.11, virtualenv-3.6
    return [name.split('.')[0] if is_module else stem(name).rstrip('0123456789.-') for name in program[:1]]


def what_runs(words):
    """Whether a module is run, and the words of the command line from its name or the script's path on; none for `-c`
    and the like."""
    index = 1
    while index < len(words):
        word = words[index]
        if word == '-m':
            return True, words[index + 1:]
        if word.startswith('-m') and not word.startswith('--'):
            return True, [word[2:]] + words[index + 1:]
        if word == '-c' or word == '-':
            break
        if word in ('-W', '-X', '-Q', '--check-hash-based-pycs'):
            index += 2
        elif word.startswith('-'):
            index += 1
        else:
            return False, words[index:]
    return False, []


def stem(path):
    """A script's name: the file's without `.py`, the directory's or archive's that holds `__main__.py`."""
    name = path.rstrip('/').rsplit('/', 1)[-1]
    if name == '__main__.py':
        name = path.rsplit('/', 2)[-2] if path.count('/') >= 2 else name
    return name[:-3] if name.endswith('.py') else name


def _arguments():
    words = getattr(sys, 'orig_argv', None)
    if words:
        return list(words)
    try:
        with open('/proc/self/cmdline', 'rb', 0) as source:
            data = source.read(65536)
    except (OSError, IOError):
        return []
    words = data.split(b'\0')[:-1]
    return words if str is bytes else [word.decode('utf-8', 'replace') for word in words]
