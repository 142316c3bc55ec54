# python: 3.6
import multiprocessing
import os
import sys


def work(connection):
    connection.send([sys.argv, sys.path[:1] == [os.getcwd()], __name__, multiprocessing.current_process().name])


if __name__ == '__main__':
    for method in ('spawn', 'forkserver'):
        context = multiprocessing.get_context(method)
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there,))
        process.start()
        print(method, here.recv(), process.join(), process.exitcode)
