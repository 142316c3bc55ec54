# fails: it is not caught
import os
import signal
import time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
finally:
    os.write(1, b'finally\n')
