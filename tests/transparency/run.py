#!/usr/bin/env python3
"""Runs every program of corpus/ bare and under the launcher and compares, byte for byte, what a caller can see of it.

    tests/transparency/run.py [--python 3.11 ...] [program ...]

A program is a file, or a directory with a `main.py`; it runs as `main.py` in a copy of its own, which is made anew for each of the
two runs at the same path. Comments at the top of the file say how:

    # command: {python} -W error main.py        what is run ({python} is the interpreter); `{python} main.py` if not said
    # env: NAME=value                           {here} is the working directory
    # stdin: text                               with \\n
    # python: 3.7 3.12                          first version, or first and last
    # fails: why                                its stderr shows a traceback also when it is run bare

Two things are not compared: addresses, and in a traceback the frames of ours that a call of a traced library passes through.
"""
import argparse
import concurrent.futures
import difflib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, 'tests', 'python'))
from run import VERSIONS, interpreters  # noqa: E402

CORPUS = os.path.join(HERE, 'corpus')
TIMEOUT = 60
LICENCE = 'x21og000g40o4-xa1g7104gk2oc-xq3gf00000000'
HEADER = re.compile(r'^# (command|env|stdin|python|fails): (.*)$')
ADDRESS = re.compile(br'0x[0-9a-f]{6,16}')
OUR_FRAME = re.compile(br'^ +File "[^"]*/whatap/[^"]*\.py", line \d+, in .*\n(?:    .*\n)*', re.M)
IS_TRACED = "import sys; print('whatap.hooks' in sys.modules)"


class Program:
    """One entry of the corpus, with what its header says."""

    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path).replace('.py', '')
        self.command, self.env, self.stdin, self.fails = '{python} main.py', [], b'', False
        self.first, self.last = VERSIONS[0], VERSIONS[-1]
        with open(os.path.join(path, 'main.py') if os.path.isdir(path) else path, encoding='utf-8') as source:
            for line in source:
                if not line.startswith('#'):
                    break
                found = HEADER.match(line.rstrip('\n'))
                if found:
                    self._take(*found.groups())

    def _take(self, key, value):
        if key == 'command':
            self.command = value
        elif key == 'env':
            self.env.append(value.partition('=')[::2])
        elif key == 'stdin':
            self.stdin = value.encode().decode('unicode_escape').encode('latin-1')
        elif key == 'fails':
            self.fails = True
        else:
            self.first, self.last = (value.split() + [self.last])[:2]

    def fits(self, version):
        return number(self.first) <= number(version) <= number(self.last)

    def lay_out(self, here):
        shutil.rmtree(here, ignore_errors=True)
        if os.path.isdir(self.path):
            shutil.copytree(self.path, here)
        else:
            os.mkdir(here)
            shutil.copy(self.path, os.path.join(here, 'main.py'))

    def words(self, python):
        return [word.replace('{python}', python) for word in shlex.split(self.command)]


def number(version):
    return [int(part) for part in version.split('.')]


def corpus():
    names = sorted(name for name in os.listdir(CORPUS) if not name.startswith(('.', '_')))
    return [Program(os.path.join(CORPUS, name)) for name in names]


class Place:
    """A directory with a home whose server is away: what the applications do does not depend on it."""

    def __init__(self, binaries):
        self.binaries = binaries
        self.directory = tempfile.mkdtemp(prefix='whatap-corpus-')
        self.home = os.path.join(self.directory, 'home')
        os.mkdir(self.home)
        with open(os.path.join(self.home, 'whatap.conf'), 'w') as file:
            file.write('license=%s\nwhatap.server.host=127.0.0.1\nwhatap.server.port=1\n' % LICENCE)
        os.chmod(os.path.join(self.home, 'whatap.conf'), 0o600)
        self.launcher = os.path.join(binaries, 'whatap-start-agent')

    def environment(self, program, here):
        env = {key: value for key, value in os.environ.items()
               if (key == 'WHATAP_BOOTSTRAP_DIR' or not key.startswith(('PYTHON', 'WHATAP'))) and key not in ('LANG', 'LC_ALL', 'LC_CTYPE', 'VIRTUAL_ENV')}
        env['WHATAP_HOME'] = self.home
        env.update((key, value.replace('{here}', here)) for key, value in program.env)
        return env

    def close(self):
        subprocess.run([os.path.join(self.binaries, 'whatap-stop-agent'), '--home', self.home], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        shutil.rmtree(self.directory, ignore_errors=True)


def execute(command, program, here, env):
    """(exit status, stdout, stderr, names of the files that the run left behind)"""
    program.lay_out(here)
    # Not DEVNULL, nor ours: the same pipe, with the same bytes, every time.
    process = subprocess.Popen(command, cwd=here, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
    try:
        out, err = process.communicate(program.stdin, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return 'no end after %d s' % TIMEOUT, out, err, []
    left = sorted(os.path.relpath(os.path.join(top, name), here) for top, _, names in os.walk(here) for name in names)
    return process.returncode, ADDRESS.sub(b'0x', out), ADDRESS.sub(b'0x', OUR_FRAME.sub(b'', err)), left


def differences(place, version, python, program, here):
    """What a caller sees of the launched program and not of the bare one, and the reverse: lines, none if all is well."""
    env = place.environment(program, here)
    words = program.words(python)
    bare = execute(words, program, here, env)
    launched = execute([place.launcher] + words, program, here, env)
    lines = []
    for what, one, other in zip(('status', 'stdout', 'stderr', 'files'), bare, launched):
        if one != other:
            lines += difflib.unified_diff(text(one), text(other), 'bare ' + what, 'launched ' + what, lineterm='', n=1)
    # A program that says nothing, or breaks by itself, shows nothing.
    if not bare[1] and not bare[2]:
        lines.append('it prints nothing')
    if b'Traceback' in bare[2] and not program.fails:
        lines += ['run bare, it should not fail:'] + text(bare[2])
    return ['%s %s: %s' % (version, program.name, ' '.join(words))] + lines if lines else []


def text(value):
    if isinstance(value, bytes):
        return value.decode('utf-8', 'backslashreplace').split('\n')
    return [str(value)]


def run(place, version, python, programs):
    """(version, how many programs ran, lines about those that differ)"""
    here = os.path.join(place.directory, version)
    traced = subprocess.run([place.launcher, python, '-c', IS_TRACED], stdout=subprocess.PIPE, env=place.environment(programs[0], here)).stdout
    if traced != b'True\n':
        return version, 0, ['%s: the tracer is not there: the comparison would show nothing' % version]
    fitting = [program for program in programs if program.fits(version)]
    return version, len(fitting), [line for program in fitting for line in differences(place, version, python, program, here)]


def binaries():
    """The programs under test: `WHATAP_TEST_BIN`, else the development build, which is brought up to date."""
    chosen = os.environ.get('WHATAP_TEST_BIN')
    if not chosen:
        subprocess.run(['cargo', 'build', '--quiet', '--locked', '-p', 'whatap', '--bins'], cwd=ROOT, check=True)
        chosen = os.path.join(os.environ.get('CARGO_TARGET_DIR') or os.path.join(ROOT, 'target'), 'debug')
    return chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--python', nargs='+', action='append', default=[], metavar='VERSION')
    parser.add_argument('programs', nargs='*')
    options = parser.parse_args()
    wanted = [version for group in options.python for version in group]
    found = {version: python for version, python in interpreters().items() if not wanted or version in wanted}
    programs = [program for program in corpus() if not options.programs or program.name in options.programs]
    failed = [version for version in wanted if version not in found]
    if not found or not programs:
        sys.exit('run.py: nothing to run')
    place = Place(binaries())
    try:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
            for done in [pool.submit(run, place, version, found[version], programs) for version in found]:
                version, count, lines = done.result()
                print('\n'.join(['%-5s %d programs: %s' % (version, count, 'DIFFERENT' if lines else 'the same')] + lines), flush=True)
                if lines:
                    failed.append(version)
    finally:
        place.close()
    print('FAILED: ' + ', '.join(failed) if failed else 'OK: %d interpreters, %d programs' % (len(found), len(programs)))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
