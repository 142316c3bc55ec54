"""HTTP calls to a server of one's own: what goes out and what comes back."""
from __future__ import print_function
import re
import threading
try:
    from http.client import HTTPConnection
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from urllib.request import Request, urlopen
    from urllib.error import HTTPError, URLError
except ImportError:
    from httplib import HTTPConnection
    from BaseHTTPServer import BaseHTTPRequestHandler, HTTPServer
    from urllib2 import HTTPError, Request, URLError, urlopen


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = repr(sorted((name.lower(), value) for name, value in self.headers.items() if name.lower() not in ('host', 'user-agent'))).encode()
        self.send_response(404 if self.path == '/missing' else 200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


server = HTTPServer(('127.0.0.1', 0), Handler)
thread = threading.Thread(target=server.serve_forever)
thread.start()
address = 'http://127.0.0.1:%d' % server.server_port
print(urlopen(address + '/a?b=c').read())
print(urlopen(Request(address, b'data', {'X-Mine': '1'})).read())
try:
    urlopen(address + '/missing')
except HTTPError as error:
    print(error, error.code, len(error.read()))
connection = HTTPConnection('127.0.0.1', server.server_port, timeout=5)
for _ in range(2):
    connection.request('GET', '/x', headers={'Traceparent': 'mine'})
    answer = connection.getresponse()
    print(answer.status, answer.read())
connection.close()
server.shutdown()
thread.join()
server.server_close()
try:
    urlopen(address, timeout=5)
except URLError as error:
    print(re.sub(r'\d+', 'N', str(error)))
