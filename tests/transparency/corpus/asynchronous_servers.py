# python: 3.7
import asyncio


async def serve(reader, writer):
    writer.write(b'got ' + await reader.readline())
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', 0)
    reader, writer = await asyncio.open_connection('127.0.0.1', server.sockets[0].getsockname()[1])
    writer.write(b'line\n')
    print(await reader.read())
    writer.close()
    server.close()

asyncio.run(main(), debug=True)
