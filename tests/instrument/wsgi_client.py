"""Calls a WSGI application as a server would."""
import io
import sys


def request(application, path, consume=True, **headers):
    """(status, headers, body) as a WSGI server would get them."""
    path, _, query = path.partition('?')
    environ = {'REQUEST_METHOD': 'GET', 'PATH_INFO': path, 'QUERY_STRING': query, 'SERVER_NAME': 'shop.example', 'SERVER_PORT': '80', 'SCRIPT_NAME': '',
               'HTTP_HOST': 'shop.example', 'REMOTE_ADDR': '10.0.0.7', 'HTTP_USER_AGENT': 'curl', 'SERVER_PROTOCOL': 'HTTP/1.1',
               'wsgi.input': io.BytesIO(), 'wsgi.errors': sys.stderr, 'wsgi.url_scheme': 'http', 'wsgi.version': (1, 0), 'wsgi.multithread': False,
               'wsgi.multiprocess': False, 'wsgi.run_once': False}
    environ.update(headers)
    answer = []
    result = application(environ, lambda status, headers, *more: answer.append((status, headers)))
    if not consume:
        return answer[0][0], result
    try:
        body = b''.join(result)
    finally:
        if hasattr(result, 'close'):
            result.close()
    return answer[0][0], dict(answer[0][1]), body
