"""urllib3 1.x and 2.x: the step begins before the connection is made, so that refused connections and failed TLS handshakes are seen.

`httpclient.py` adds the trace context and ends the step when the response's header has arrived.
"""
from ..hooks import wrap
from ..tx import current
from .httpclient import STEP, begin, finish


def instrument(module):
    wrap(module.HTTPConnectionPool, '_make_request', traced_make_request)


def traced_make_request(make_request):
    def wrapper(self, conn, method, url, *args, **kwargs):
        tx = current()
        if tx is None:
            return make_request(self, conn, method, url, *args, **kwargs)
        begin(tx, conn, method, url, True)
        try:
            return make_request(self, conn, method, url, *args, **kwargs)
        except BaseException as error:
            finish(conn, 0, error)
            raise
        finally:
            if STEP in getattr(conn, '__dict__', ()):
                finish(conn, 0, None)
    return wrapper
