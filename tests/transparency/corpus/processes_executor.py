# python: 3.7
import concurrent.futures
import os


def fail():
    raise ValueError('in a process')


if __name__ == '__main__':
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        print(list(pool.map(abs, [-1, 2, -3])))
        try:
            pool.submit(fail).result()
        except ValueError as error:
            print(type(error), error, type(error.__cause__).__name__)
