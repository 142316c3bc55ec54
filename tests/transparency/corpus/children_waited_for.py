from __future__ import print_function
import os
pids = []
for status in (0, 3, 9):
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    pids.append(pid)
seen = []
while True:
    try:
        pid, status = os.wait()
    except OSError as error:
        print(error)
        break
    seen.append((pids.index(pid), os.WEXITSTATUS(status)))
print(sorted(seen))
