#!/usr/bin/env python3
"""CPU per request that the tracer adds: the application called in process, bare and traced, in turns.

    scripts/bench_tracer.py [--python EXECUTABLE] [--app flask|django|wsgi|MODULE:APP] [--rounds N] [--requests N] [--json]

Each side is a process of its own that answers the same requests; the rounds alternate and the best of each side
counts, because what other programs do only adds. The traced side reports to a collector written in Python that only
reads the ring's words, in a process of its own, unless WHATAP_LAUNCH names a running one.
"""
import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BOOTSTRAP = os.path.join(ROOT, 'bootstrap', 'whatap', 'bootstrap')

WORKER = r'''
import io, os, sys, time
app_name, requests = sys.argv[1], int(sys.argv[2])
sys.path[:0] = %(paths)r

def flask_app():
    import sqlite3
    from flask import Flask
    app = Flask('bench')
    connection = sqlite3.connect(':memory:', check_same_thread=False)
    connection.execute('create table item (id integer primary key, name text)')
    connection.executemany('insert into item values (?, ?)', [(n, 'item %%d' %% n) for n in range(100)])
    @app.route('/')
    def hello():
        return 'hello'
    @app.route('/sql')
    def sql():
        cursor = connection.cursor()
        for n in range(5):
            cursor.execute('select name from item where id = ?', (n,)).fetchone()
        return 'hello'
    @app.route('/fail')
    def fail():
        raise ValueError('no')
    app.logger.disabled = True
    return app, ['/', '/sql', '/fail']

def django_app():
    import django, types
    from django.conf import settings
    settings.configure(SECRET_KEY='x', ALLOWED_HOSTS=['*'], ROOT_URLCONF='bench_urls', MIDDLEWARE=[], LOGGING_CONFIG=None, DATABASES={
        'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:', 'CONN_MAX_AGE': None}})
    django.setup()
    from django.db import connection
    from django.http import HttpResponse
    def hello(request):
        return HttpResponse('hello')
    def sql(request):
        with connection.cursor() as cursor:
            for n in range(5):
                cursor.execute('select name from item where id = %%s', (n,)).fetchone()
        return HttpResponse('hello')
    def fail(request):
        raise ValueError('no')
    urls = types.ModuleType('bench_urls')
    try:
        from django.urls import path
        urls.urlpatterns = [path('', hello), path('sql', sql), path('fail', fail)]
    except ImportError:
        from django.conf.urls import url
        urls.urlpatterns = [url('^$', hello), url('^sql$', sql), url('^fail$', fail)]
    sys.modules['bench_urls'] = urls
    with connection.cursor() as cursor:
        cursor.execute('create table item (id integer primary key, name text)')
        cursor.executemany('insert into item values (%%s, %%s)', [(n, 'item %%d' %% n) for n in range(100)])
    import logging
    logging.getLogger('django').disabled = logging.getLogger('django.request').disabled = True
    from django.core.wsgi import get_wsgi_application
    return get_wsgi_application(), ['/', '/sql', '/fail']

def wsgi_app():
    def app(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    if 'whatap' in sys.modules:
        import whatap
        app = whatap.register_app(app)
    return app, ['/']

def other_app(name):
    module, _, attribute = name.partition(':')
    __import__(module)
    module = sys.modules[module]
    return getattr(module, attribute), getattr(module, 'BENCH_PATHS', ['/'])

make = {'flask': flask_app, 'django': django_app, 'wsgi': wsgi_app}.get(app_name) or (lambda: other_app(app_name))
app, paths = make()
body = io.BytesIO()
def environ(path):
    return {'REQUEST_METHOD': 'GET', 'SCRIPT_NAME': '', 'PATH_INFO': path, 'QUERY_STRING': '', 'SERVER_NAME': 'localhost',
            'SERVER_PORT': '8000', 'SERVER_PROTOCOL': 'HTTP/1.1', 'HTTP_HOST': 'localhost:8000', 'REMOTE_ADDR': '127.0.0.1',
            'HTTP_USER_AGENT': 'bench/1.0 (like a browser that says a lot about itself)', 'HTTP_ACCEPT': '*/*',
            'wsgi.version': (1, 0), 'wsgi.url_scheme': 'http', 'wsgi.input': body, 'wsgi.errors': None,
            'wsgi.multithread': False, 'wsgi.multiprocess': True, 'wsgi.run_once': False}

def start_response(status, headers, exc_info=None):
    return None

def once(path):
    result = app(environ(path), start_response)
    try:
        for chunk in result:
            pass
    finally:
        close = getattr(result, 'close', None)
        if close is not None:
            close()

def measure(path):
    clock = getattr(time, 'thread_time', None) or time.clock if hasattr(time, 'clock') else time.thread_time
    begun = clock()
    for _ in range(requests):
        once(path)
    return (clock() - begun) / requests * 1e6

for path in paths:
    for _ in range(200):
        once(path)
print(' '.join(paths))
sys.stdout.flush()
for line in iter(sys.stdin.readline, ''):
    print('%%.3f' %% measure(line.strip()))
    sys.stdout.flush()
if 'whatap' in sys.modules:
    from whatap import tx, guard
    ring = tx._ring
    sys.stderr.write('attached %%s, ended %%d, in ring %%d, waiting %%d, faults %%s\n' %% (
        ring.mapping is not None, ring.words[24], ring.words[25], len(ring.queue), guard.first_faults))
'''


class Side(object):
    """One process that answers requests and says how long they took."""

    def __init__(self, python, app, requests, launch, paths):
        env = dict(os.environ)
        env.pop('WHATAP_LAUNCH', None)
        if launch:
            env['PYTHONPATH'] = BOOTSTRAP + (os.pathsep + env['PYTHONPATH'] if env.get('PYTHONPATH') else '')
            env['WHATAP_LAUNCH'] = launch
        code = WORKER % {'paths': paths}
        self.process = subprocess.Popen([python, '-c', code, app, str(requests)], env=env, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, universal_newlines=True)
        self.paths = self.process.stdout.readline().split()

    def measure(self, path):
        self.process.stdin.write(path + '\n')
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--python', default=sys.executable)
    parser.add_argument('--app', default='flask')
    parser.add_argument('--path', action='append', default=[], help='directory of the application')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--requests', type=int, default=400)
    parser.add_argument('--json', action='store_true')
    options = parser.parse_args()

    launch, collector = os.environ.get('WHATAP_LAUNCH'), None
    if not launch:
        name = 'whatap-bench-%d' % os.getpid()
        launch = '1;_name=' + name
        collector = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, 'tests', 'python', 'fake_collector.py'), name, '--skim'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        collector.stdout.readline()
    bare = Side(options.python, options.app, options.requests, None, options.path)
    traced = Side(options.python, options.app, options.requests, launch, options.path)
    results = {}
    for path in bare.paths:
        best = [1e9, 1e9]
        for _ in range(options.rounds):
            for index, side in enumerate((bare, traced)):
                best[index] = min(best[index], side.measure(path))
        results[path] = {'bare_us': best[0], 'traced_us': best[1], 'added_us': best[1] - best[0]}
    bare.stop()
    traced.stop()
    if collector is not None:
        collector.stdin.close()
        collector.wait()
    if options.json:
        print(json.dumps(results))
        return
    print('%-20s %10s %10s %10s' % ('request', 'bare us', 'traced us', 'added us'))
    for path, row in results.items():
        print('%-20s %10.1f %10.1f %10.1f' % (path, row['bare_us'], row['traced_us'], row['added_us']))


if __name__ == '__main__':
    main()
