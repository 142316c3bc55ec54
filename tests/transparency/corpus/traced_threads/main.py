# env: WHATAP_HOOK_SERVICE_PATTERNS=work:*
# command: {python} -W error main.py
# python: 3.7
"""Threads, tasks and their contexts inside transactions; no thread and no warning more."""
import asyncio
import contextvars
import os
import threading
from concurrent.futures import ThreadPoolExecutor
import work
variable = contextvars.ContextVar('variable', default='unset')


def both():
    variable.set('inside')
    found = []
    thread = threading.Thread(target=lambda: found.append(variable.get()))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        found.append(pool.submit(work.add, 1, 2).result())
    return found


print(work.within(both), variable.get(), threading.active_count())


async def main():
    async def part(number):
        await asyncio.sleep(0)
        return work.add(number, 1)
    return await asyncio.gather(*[part(number) for number in range(5)])

print(asyncio.run(main()))
print(work.within(lambda: asyncio.run(main())))
pid = os.fork()
if pid == 0:
    os._exit(work.add(1, 2))
print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
