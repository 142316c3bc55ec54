# python: 3.7
import asyncio
import sys


async def fail():
    await asyncio.sleep(0)
    raise ValueError('in a task')


async def forever():
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        print('cancelled')
        raise


async def numbers():
    for number in range(3):
        yield number
        await asyncio.sleep(0)


async def main():
    print(await asyncio.gather(asyncio.sleep(0, 1), fail(), return_exceptions=True))
    try:
        await asyncio.wait_for(forever(), 0.01)
    except asyncio.TimeoutError as error:
        print(type(error).__name__)
    print([number async for number in numbers()])
    print(await asyncio.get_running_loop().run_in_executor(None, len, 'four'))
    process = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(1)', stdout=asyncio.subprocess.PIPE)
    print(await process.communicate(), process.returncode)
    loop = asyncio.get_running_loop()
    print(type(loop).__name__, loop.get_debug(), loop.get_task_factory(), len(asyncio.all_tasks()))
    asyncio.ensure_future(forever())
    await asyncio.sleep(0)

asyncio.run(main())
