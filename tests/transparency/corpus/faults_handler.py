# command: {python} -X faulthandler main.py
# python: 3.6
import faulthandler
import signal
import sys
print(faulthandler.is_enabled())
faulthandler.dump_traceback(all_threads=True)
faulthandler.register(signal.SIGUSR1, all_threads=False)
import os
os.kill(os.getpid(), signal.SIGUSR1)
faulthandler.cancel_dump_traceback_later()
