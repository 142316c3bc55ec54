"""A small HTTP server in a thread of the test. Remembers the headers of each request."""
import threading

try:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from socketserver import ThreadingMixIn
except ImportError:  # Python 2.7
    from BaseHTTPServer import BaseHTTPRequestHandler, HTTPServer
    from SocketServer import ThreadingMixIn


class Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, address):
        """Clients go away."""


class Peer(object):
    def __init__(self):
        self.requests = []
        seen = self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def answer(self):
                length = int(self.headers.get('content-length') or 0)
                body = self.rfile.read(length)
                seen.append((self.command, self.path, dict((key.lower(), value) for key, value in self.headers.items()), body))
                if self.path.startswith('/redirect'):
                    self.send_response(302)
                    self.send_header('Location', '/here')
                elif self.path.startswith('/hang'):
                    self.close_connection = True
                    return
                else:
                    self.send_response(404 if self.path.startswith('/missing') else 200)
                data = b'x' * 10
                self.send_header('Content-Length', str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *args):
                pass

        self.server = Server(('127.0.0.1', 0), Handler)
        self.port = self.server.server_address[1]
        self.url = 'http://127.0.0.1:%d' % self.port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={'poll_interval': 0.05})
        self.thread.daemon = True
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
