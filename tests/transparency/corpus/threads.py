from __future__ import print_function
import sys
import threading
local = threading.local()
local.x = 'main'
found = []


class Mine(threading.Thread):
    def run(self):
        local.x = self.name
        found.append((self.name, local.x, threading.current_thread() is self, self.is_alive(), len(sys._current_frames()) > 0))


threads = [Mine(name='t%d' % number) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
try:
    threads[0].start()
except RuntimeError as error:
    print(error)
print(sorted(found), local.x, threading.active_count())
thread = threading.Thread(target=lambda *a, **k: print(a, k), args=(1,), kwargs={'target': 2})
thread.daemon = True
thread.start()
thread.join()
