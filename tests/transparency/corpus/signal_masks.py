# python: 3.6
import signal
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
print(signal.set_wakeup_fd(-1))
print(signal.getitimer(signal.ITIMER_REAL))
