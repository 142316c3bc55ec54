"""W3C trace context: who called us."""
from ._compat import PY2, Struct, text as text_type
from .wire import FLAG_REMOTE_PARENT, FLAG_SAMPLED

_two_numbers = Struct('<QQ').unpack
_HEX = frozenset('0123456789abcdef')
_NO_TRACE = b'\0' * 16
# Headers that were none.
bad = 0


def parse(traceparent):
    """Trace id as two numbers, span id and flags of a `traceparent` header; None, counted, for any other text."""
    try:
        if type(traceparent) is not str or not 55 <= len(traceparent) <= 256:
            raise ValueError
        parts = traceparent.split('-', 4)
        version, trace, span, flags = parts[:4]
        if len(version) != 2 or len(trace) != 32 or len(span) != 16 or len(flags) != 2 or version == 'ff':
            raise ValueError
        if version == '00' and len(parts) != 4 or not _HEX.issuperset(version + trace + span + flags):
            raise ValueError
        parent = int(span, 16)
        data = bytes(bytearray.fromhex(trace if not PY2 else text_type(trace)))
        if parent == 0 or data == _NO_TRACE:
            raise ValueError
    except ValueError:
        global bad
        bad += 1
        return None
    return _two_numbers(data), parent, FLAG_REMOTE_PARENT | (FLAG_SAMPLED if int(flags, 16) & 1 else 0)
