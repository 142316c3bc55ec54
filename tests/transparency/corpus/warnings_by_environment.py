# env: PYTHONWARNINGS=error
import logging, sqlite3, threading
print('no warning')
