# python: 3.7
import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
variable = contextvars.ContextVar('variable', default='unset')
print(len(contextvars.copy_context()), list(contextvars.copy_context()))
variable.set('main')
found = []
thread = threading.Thread(target=lambda: found.append(variable.get()))
thread.start()
thread.join()
with ThreadPoolExecutor(1) as pool:
    found.append(pool.submit(variable.get).result())


async def task():
    found.append(variable.get())
    variable.set('task')


async def main():
    await asyncio.gather(task(), task())
    found.append(variable.get())

asyncio.run(main())
found.append(variable.get())
print(found, [key.name for key in contextvars.copy_context()])
