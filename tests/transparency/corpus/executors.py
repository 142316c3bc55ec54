# python: 3.6
import concurrent.futures


def work(*arguments, **named):
    return arguments, named


def fail():
    raise KeyError('in a thread')


with concurrent.futures.ThreadPoolExecutor(2, 'mine') as pool:
    print(pool.submit(work, 1, other=2).result(), list(pool.map(abs, [-1, 2])))
    future = pool.submit(fail)
    try:
        future.result()
    except KeyError as error:
        names = []
        trace = error.__traceback__
        while trace:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        print(error, [name for name in names if name in ('fail', '<module>', 'result')], future.exception() is error)
try:
    pool.submit(work)
except RuntimeError as error:
    print(error)
