"""Modules of the user's that have names of the standard library's."""
from __future__ import print_function
import queue, signal, socket, token, typing, uuid, zlib
print([getattr(module, 'WHO', module) for module in (queue, signal, socket, token, typing, uuid, zlib)])
