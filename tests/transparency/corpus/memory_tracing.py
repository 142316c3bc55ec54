# command: {python} -X tracemalloc=2 main.py
# python: 3.6
import sqlite3
import tracemalloc
print(tracemalloc.is_tracing(), tracemalloc.get_traceback_limit())
mine = bytearray(1000000)
own = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, __file__)]).statistics('lineno')
print([(line.traceback[0].lineno, line.size >= 1000000) for line in own[:1]])
