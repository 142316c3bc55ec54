#!/usr/bin/env python3
"""Runs test_*.py under every interpreter that is there: 2.7 and 3.6 to 3.13, with nothing but their own unittest.

    tests/python/run.py [--python 3.11 ...] [test_ring ...]

Interpreters are taken from pyenv ($PYENV_ROOT or ~/.pyenv) and from PATH.
"""
import argparse
import glob
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
VERSIONS = ['2.7', '3.6', '3.7', '3.8', '3.9', '3.10', '3.11', '3.12', '3.13']
TIMEOUT = 300


def interpreters():
    """{version: executable}: the newest of each."""
    found = {}
    root = os.environ.get('PYENV_ROOT') or os.path.expanduser('~/.pyenv')
    for version in VERSIONS:
        places = ['%s/python%s' % (directory, version) for directory in os.environ.get('PATH', '').split(os.pathsep)]
        places += sorted(glob.glob('%s/versions/%s.*/bin/python' % (root, version)), key=_number)
        places = [place for place in places if os.access(place, os.X_OK)]
        if places:
            found[version] = places[-1]
    return found


def _number(path):
    return [int(part) for part in re.findall(r'\d+', path.rsplit('/versions/', 1)[-1])]


def run(python, test, frames):
    """(whether it passed, its closing line, all of its output)"""
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE='1')
    env.setdefault('WHATAP_TEST_FRAMES', str(frames))
    env.pop('WHATAP_LAUNCH', None)
    command = [python, '-W', 'ignore', os.path.join(HERE, test + '.py')]
    process = subprocess.Popen(command, cwd=HERE, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        out = process.communicate(timeout=TIMEOUT)[0].decode('utf-8', 'replace')
    except subprocess.TimeoutExpired:
        process.kill()
        out = process.communicate()[0].decode('utf-8', 'replace') + '\nno end after %d s' % TIMEOUT
        return False, 'no end after %d s' % TIMEOUT, out
    lines = [line for line in out.splitlines() if line.strip()]
    ran = [line for line in lines if line.startswith('Ran ')]
    return process.returncode == 0, ': '.join(ran[-1:] + lines[-1:]), out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--python', nargs='+', action='append', default=[], metavar='VERSION')
    parser.add_argument('tests', nargs='*')
    options = parser.parse_args()
    wanted = [version for group in options.python for version in group]
    found = interpreters()
    missing = [version for version in wanted if version not in found]
    chosen = [version for version in found if not wanted or version in wanted]
    tests = options.tests or sorted(os.path.basename(path)[:-3] for path in glob.glob(os.path.join(HERE, 'test_*.py')))
    failed = []
    for version in chosen:
        for test in tests:
            passed, closing, out = run(found[version], test, 1000000 if version == chosen[-1] else 30000)
            print('%-5s %-16s %s' % (version, test, closing))
            sys.stdout.flush()
            if not passed:
                failed.append('%s %s' % (version, test))
                print(out)
    for version in missing:
        failed.append('%s is not there' % version)
    print('FAILED: ' + ', '.join(failed) if failed else 'OK: %d interpreters, %d files' % (len(chosen), len(tests)))
    return 1 if failed or not chosen else 0


if __name__ == '__main__':
    sys.exit(main())
