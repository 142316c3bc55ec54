"""Shared by the tests: finds the package and the interpreters, starts programs under the tracer."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PACKAGE_PARENT = os.path.join(ROOT, 'bootstrap')
BOOTSTRAP = os.path.join(PACKAGE_PARENT, 'whatap', 'bootstrap')

if PACKAGE_PARENT not in sys.path:
    sys.path.append(PACKAGE_PARENT)
sys.dont_write_bytecode = True


def environment(launch=None, **more):
    """The environment of a program under the tracer."""
    env = dict((key, value) for key, value in os.environ.items() if not key.startswith(('WHATAP_', 'PYTHON')))
    env['PYTHONPATH'] = BOOTSTRAP
    env['PYTHONDONTWRITEBYTECODE'] = '1'
    if launch is not None:
        env['WHATAP_LAUNCH'] = launch
    env.update(more)
    return env


def run(arguments, env, cwd=None, stdin=b''):
    """(exit status, stdout, stderr) of a program."""
    process = subprocess.Popen(arguments, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    out, err = process.communicate(stdin)
    return process.returncode, out, err


class Programs(object):
    """Numbers for names that no other test uses."""
    made = 0

    @classmethod
    def name(cls):
        cls.made += 1
        return 'whatap-test-%d-%d' % (os.getpid(), cls.made)
