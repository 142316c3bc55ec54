import os
import signal
os.write(1, b'alive\n')
os.kill(os.getpid(), signal.SIGKILL)
