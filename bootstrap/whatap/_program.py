"""What this interpreter was told: its command line and environment, without `os`, which we may not import on 2.7."""
import posix
import sys


def environment(name):
    """A variable of this process's environment, as `os` has it if that is loaded."""
    os = sys.modules.get('os')
    if os is not None:
        return os.environ.get(name)
    value = posix.environ.get(name if str is bytes else name.encode('ascii'))
    return value if value is None or str is bytes else value.decode('utf-8', 'surrogateescape')


def executable():
    """The name under which the interpreter was called: also that of a server which it is embedded in."""
    return ''.join(_arguments()[:1]).rsplit('/', 1)[-1]


def names():
    """What this interpreter was told to run: the script's name, or the module of `-m`."""
    is_module, program = what_runs()
    # pip3, pip3.11, virtualenv-3.6
    return [name.split('.')[0] if is_module else stem(name).rstrip('0123456789.-') for name in program[:1]]


def what_runs():
    """Whether a module is run, and the words of the command line from its name or the script's path on; none for `-c`
    and the like."""
    words = _arguments()
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
