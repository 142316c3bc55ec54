#!/usr/bin/env python3
"""Tests of the instrumentation against the real libraries, on every interpreter that is found.

    python3 tests/instrument/run.py [--python 3.11 ...] [--test test_http ...] [--fresh]

Makes one virtual environment per interpreter in $WHATAP_TEST_ENVS (default: .envs in the checkout) and keeps it as long as its requirements
do not change. Each test file runs in a process of its own. PostgreSQL is started once for all of them, if this machine has it.
"""
import argparse
import concurrent.futures
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
VERSIONS = ['2.7', '3.6', '3.7', '3.8', '3.9', '3.10', '3.11', '3.12', '3.13']
ASYNC = {'test_asgi', 'test_asyncio', 'test_django_asgi', 'test_methods_async', 'test_psycopg_async'}
SERVERS_ON = {'2.7', '3.6', '3.11', '3.13'}
STDLIB_ON = {'3.11'}
VIRTUALENV = 'virtualenv==20.15.1'  # the last one that runs on 2.7
OLD_PIP = {'3.6': 'pip==21.3.1', '3.7': 'pip==24.0'}  # the ones of those days do not know today's wheels
TIMEOUT = 240

sys.path.insert(0, HERE)
import postgres  # noqa: E402


def main():
    arguments = parse()
    envs = os.environ.get('WHATAP_TEST_ENVS') or os.path.join(ROOT, '.envs')
    os.makedirs(envs, exist_ok=True)
    started = time.time()
    found = {version: path for version in arguments.python or VERSIONS for path in [interpreter(version)] if path}
    missing = [version for version in arguments.python or [] if version not in found]
    if missing or not found:
        sys.exit('run.py: no Python %s here' % ', '.join(missing or VERSIONS))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        made = dict(zip(found, pool.map(lambda version: environment(version, found[version], envs, arguments.fresh), found)))
    server = start_postgres()
    try:
        failed = [version for version in found if not run_all(version, made[version], arguments.test)]
    finally:
        if server is not None:
            server.stop()
    print('%s: %d interpreters in %d s%s' % (
        'FAILED' if failed else 'OK', len(found), time.time() - started, ', failed: ' + ' '.join(failed) if failed else ''))
    return 1 if failed else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--python', action='append', metavar='VERSION', help='only this version, e.g. 3.11 (repeatable)')
    parser.add_argument('--test', action='append', metavar='FILE', help='only this file, e.g. test_http (repeatable)')
    parser.add_argument('--fresh', action='store_true', help='make the environments anew')
    return parser.parse_args()


def interpreter(version):
    """The newest interpreter of that version below pyenv, else the one on PATH."""
    root = os.path.join(os.environ.get('PYENV_ROOT') or os.path.expanduser('~/.pyenv'), 'versions')
    if os.path.isdir(root):
        named = [name for name in os.listdir(root) if re.match(re.escape(version) + r'\.\d+$', name)]
        for name in sorted(named, key=lambda name: int(name.rpartition('.')[2]), reverse=True):
            path = os.path.join(root, name, 'bin', 'python' + version)
            if os.access(path, os.X_OK):
                return path
    return shutil.which('python' + version)


def environment(version, python, envs, fresh):
    """Python of the environment of that version, or None if it could not be made."""
    requirements = os.path.join(HERE, 'requirements', version + '.txt')
    place = os.path.join(envs, 'instrument-' + version)
    ours = os.path.join(place, 'bin', 'python')
    with open(requirements, 'rb') as file:
        stamp = hashlib.sha256(file.read() + python.encode()).hexdigest()
    stamped = os.path.join(place, 'stamp')
    if not fresh and os.path.exists(stamped) and open(stamped).read() == stamp:
        return ours
    started = time.time()
    shutil.rmtree(place, ignore_errors=True)
    try:
        if version == '2.7':
            tools = os.path.join(envs, 'virtualenv-2.7')
            if not os.path.isdir(tools):
                quietly([python, '-m', 'pip', 'install', '-q', '-t', tools, VIRTUALENV])
            quietly([python, '-m', 'virtualenv', '-q', place], PYTHONPATH=tools)
        else:
            quietly([python, '-m', 'venv', place])
            if version in OLD_PIP:
                quietly([ours, '-m', 'pip', 'install', '-q', OLD_PIP[version]])
        quietly([ours, '-m', 'pip', 'install', '-q', '--prefer-binary', '-r', requirements])
    except RuntimeError as error:
        print('%s: no environment\n%s' % (version, error), flush=True)
        return None
    with open(stamped, 'w') as file:
        file.write(stamp)
    print('%s: environment made in %d s' % (version, time.time() - started), flush=True)
    return ours


def quietly(command, **variables):
    environ = {key: value for key, value in os.environ.items() if not key.startswith(('PYTHON', 'WHATAP_'))}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(environ, **variables))
    if done.returncode != 0:
        raise RuntimeError('%s\n%s' % (' '.join(command), done.stdout.decode('utf-8', 'replace')[-4000:]))


def start_postgres():
    try:
        server = postgres.Server()
    except postgres.library().Unavailable as reason:
        print('SKIP PostgreSQL: %s' % reason, flush=True)
        return None
    os.environ[postgres.VARIABLE] = server.address
    return server


def run_all(version, python, only):
    """Runs the test files that fit this version. Whether all went well."""
    if python is None:
        return False
    files = sorted(name[:-3] for name in os.listdir(HERE) if name.startswith('test_') and name.endswith('.py'))
    good = True
    for name in files:
        if only and name not in only:
            continue
        if (name in ASYNC and version in ('2.7', '3.6') or name == 'test_servers' and version not in SERVERS_ON
                or name == 'test_stdlib' and version not in STDLIB_ON):
            continue
        good = run(version, python, name) and good
    return good


def run(version, python, name):
    environ = {key: value for key, value in os.environ.items()
               if not key.startswith(('PYTHON', 'WHATAP_')) or key == postgres.VARIABLE}
    environ['PYTHONDONTWRITEBYTECODE'] = '1'
    try:
        done = subprocess.run([python, '-m', 'unittest', name], cwd=HERE, env=environ, timeout=TIMEOUT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, code = done.stdout.decode('utf-8', 'replace'), done.returncode
    except subprocess.TimeoutExpired as late:
        output, code = (late.stdout or b'').decode('utf-8', 'replace') + '\nno end after %d s' % TIMEOUT, 1
    closing = (output.strip().splitlines() or ['no output'])[-1]
    skipped = re.match(r'(?:unittest\.case\.)?SkipTest: (.*)', closing)
    if skipped:
        print('%-5s %-22s SKIP: %s' % (version, name, skipped.group(1)), flush=True)
        return True
    ran = re.findall(r'^Ran .*$', output, re.M) or ['Ran nothing']
    print('%-5s %-22s %s: %s' % (version, name, ran[-1], closing), flush=True)
    if code != 0:
        print(output, flush=True)
    return code == 0


if __name__ == '__main__':
    sys.exit(main())
