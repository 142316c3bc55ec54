# env: PYTHONPATH={here}/mine
from __future__ import print_function
import mmap, queue, random, socket, struct, threading, uuid
print([module.WHO for module in (mmap, queue, random, socket, struct, threading, uuid)])
