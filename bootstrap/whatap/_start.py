"""What happens in every interpreter at its start: little, and without importing what the program did not."""
import posix
import sys

from . import _launch, _program

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
    text = _program.environment('WHATAP_LAUNCH')
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
    if hooks.names('__main__'):
        from . import _script
        _script.watch()
    if posix.getpid() == 1:
        from ._compat import at_exit
        at_exit(_leave_pid_1)
    if options.get('standalone_enabled', False) and options['standalone_type'] != hooks.MULTIPLE and not by_code:
        from . import _standalone
        _standalone.begin()
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


def _is_traced(options):
    """The option trace_child_process: with `auto` package managers and the like are left alone."""
    choice = options.get('trace_child_process', 'auto')
    if choice == 'always':
        return True
    if choice == 'never':
        return _launch.launch.pid == str(posix.getpid())
    return not NOT_TRACED.intersection(_program.names())
