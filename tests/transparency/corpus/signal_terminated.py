import atexit
import os
import signal
import time
atexit.register(os.write, 1, b'never printed\n')
os.write(1, b'alive\n')
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
