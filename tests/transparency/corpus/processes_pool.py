import multiprocessing


def work(number):
    return number * number, multiprocessing.current_process().name != 'MainProcess'


if __name__ == '__main__':
    pool = multiprocessing.Pool(2)
    print(pool.map(work, range(5)))
    pool.close()
    pool.join()
    process = multiprocessing.Process(target=work, args=('wrong',))
    queue = multiprocessing.Queue()
    child = multiprocessing.Process(target=queue.put, args=([1, 2],))
    child.start()
    print(queue.get(), child.join(), child.exitcode, child.name)
