from __future__ import print_function
import signal
import time

for number in range(1, 65):
    try:
        print(number, signal.getsignal(number))
    except ValueError as error:
        print(number, error)
heard = []
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD):
    signal.signal(number, lambda got, frame: heard.append((got, frame.f_code.co_name)))
signal.setitimer(signal.ITIMER_REAL, 0.01)
until = time.time() + 20
while not heard and time.time() < until:
    time.sleep(0.001)
import os
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
    os.kill(os.getpid(), number)
print(heard)
