# command: {python} -X dev main.py
# python: 3.7
import asyncio
import logging
import sqlite3
import sys


async def main():
    await asyncio.sleep(0)
    return sys.flags.dev_mode

print(asyncio.run(main()))
with open('main.py') as file:
    file.read()
sqlite3.connect(':memory:').close()
print('over')
