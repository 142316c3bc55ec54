"""Requests of a WSGI application, answered byte for byte; transactions begin and end here."""
from __future__ import print_function
import threading
from wsgiref.handlers import SimpleHandler
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator
from io import BytesIO


class Body(object):
    def __init__(self, parts):
        self.parts = iter(parts)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.parts)

    next = __next__

    def close(self):
        print('closed')


def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/raise':
        raise ValueError('in the application')
    start_response('200 OK', [('Content-Type', 'text/plain')])
    if path == '/empty':
        return []
    if path == '/body':
        return Body([b'one', b'', b'two'])
    return [b'hello ' + environ.get('QUERY_STRING', '').encode()]


for path in ('/', '/empty', '/body', '/raise'):
    environ = {'PATH_INFO': path, 'SCRIPT_NAME': '', 'QUERY_STRING': 'a=b'}
    setup_testing_defaults(environ)
    out, err = BytesIO(), BytesIO()
    started = []
    try:
        result = validator(application)(environ, lambda status, headers, *_: started.append((status, headers)) or out.write)
        print(path, list(result), started)
        result.close()
    except ValueError as error:
        print(path, type(error), error)
