"""A collector in Python: real memfds, a real abstract socket, the reading side of docs/protocol.md, sections 2 and 3.

In process as a thread, `Collector(name).start()`, or as a program that can be stopped and killed:

    fake_collector.py NAME [--skim] [--forget] [--busy]     commands on stdin: frames, counters, quit; one line of JSON each on stdout
"""
import ctypes
import errno
import json
import mmap
import os
import random
import select
import socket
import struct
import sys
import threading
import time

import frames

SIZE = 65536 + 262144
DATA_AT, DATA = 65536, 262144
SLOTS_AT, SLOT, SLOTS = 12288, 192, 256
SEQPACKET = 5
COUNTERS = {'ended': 192, 'put': 200, 'queue_full': 208, 'too_big': 216, 'encode_error': 224, 'fork_discard': 232,
            'exit': 240, 'cut': 272, 'begun': 280, 'failures': 288}
_LIBC = ctypes.CDLL(None, use_errno=True)
_MEMFD_CREATE = {'x86_64': 319, 'aarch64': 279}.get(os.uname()[4], 319)


def memfd(size):
    number = _LIBC.syscall(_MEMFD_CREATE, b'ring', 1 | 2)
    if number < 0:
        raise OSError('memfd_create')
    os.ftruncate(number, size)
    return number


class Ring(object):
    """The collector's side of one ring."""

    def __init__(self, request):
        self.id = random.getrandbits(64) or 1
        self.number = memfd(SIZE)
        self.memory = mmap.mmap(self.number, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.memory[0:64] = struct.pack('<8sIIQIIIIIIQI4x', b'WHATAPR1', 1, SIZE, self.id, SLOTS_AT, SLOTS, 4096, 8192,
                                        DATA_AT, DATA, int(time.time() * 1e6), int(request.get('pid', 0)))
        self.request = request
        self.tail = self.beat = self.taken = self.damaged = 0
        self.frames = []
        self.set_options({}, on=True)

    def word(self, at):
        return struct.unpack('<Q', self.memory[at:at + 8])[0]

    def store(self, at, value):
        self.memory[at:at + 8] = struct.pack('<Q', value)

    def set_options(self, options, on=True):
        version = self.word(96) & 0xffffffff
        flags = 1 if on else 0
        self.store(96, version + 1 | flags << 32)
        text = ''.join(['%s=%s\n' % pair for pair in options.items()]).encode('ascii')
        self.memory[4096:4096 + 4 + len(text)] = struct.pack('<I', len(text)) + text
        self.store(96, version + 2 | flags << 32)

    def skim(self):
        """Takes everything without looking at it: for measurements."""
        self.beat += 1
        self.store(72, self.beat)
        self.store(64, self.word(128))

    def poll(self, keep=True):
        """Takes what is there. Any frame that is not whole is an error of the test's subject."""
        self.beat += 1
        self.store(72, self.beat)
        head = self.word(128)
        while self.tail < head:
            length = struct.unpack('<I', self.copy(self.tail, 4))[0]
            if not 120 <= length <= DATA // 4:
                raise frames.Bad('length %d at %d, head %d' % (length, self.tail, head))
            frame = frames.decode(self.copy(self.tail, length), self.tail)
            self.taken += 1
            if frame['sequence'] != self.taken or frame['ring'] != '%016x' % self.id:
                raise frames.Bad('sequence %d, expected %d' % (frame['sequence'], self.taken))
            if keep:
                self.frames.append(frame)
            self.tail += length + (-length % 8)
        self.store(64, self.tail)
        self.store(80, self.taken)

    def copy(self, position, length):
        at = position % DATA
        data = self.memory[DATA_AT + at:DATA_AT + min(at + length, DATA)]
        return data + self.memory[DATA_AT:DATA_AT + length - len(data)]

    def counters(self):
        found = dict((name, self.word(at)) for name, at in COUNTERS.items())
        found['taken'] = self.taken
        return found

    def running(self):
        """The slots in use: name, state, text."""
        found = []
        for slot in range(SLOTS):
            data = self.memory[SLOTS_AT + slot * SLOT:SLOTS_AT + (slot + 1) * SLOT]
            version, name_bytes = struct.unpack('<IB', data[:5])
            if version & 1 and data[108:112] == data[:4]:
                text_bytes = bytearray(data[113:114])[0]
                found.append({'slot': slot, 'name': data[40:40 + name_bytes].decode('utf-8', 'replace'),
                              'id': '%016x' % struct.unpack('<Q', data[8:16])[0], 'state': bytearray(data[112:113])[0],
                              'text': data[120:120 + text_bytes].decode('utf-8', 'replace')})
        return found


class Collector(object):
    """Accepts tracers and reads their rings."""

    def __init__(self, name, interval=0.002, keep=True, answers=True):
        self.name = name
        self.interval = interval
        self.skims = False
        self.keep = keep
        self.answers = answers
        self.rings = []
        self.requests = []
        # Frames that did not wait for their ring.
        self.late = []
        self.bells = 0
        self.error = None
        self.listener = socket.socket(socket.AF_UNIX, SEQPACKET)
        self.listener.bind('\0' + name)
        self.listener.listen(128)
        self.connections = []
        self.lock = threading.Lock()
        self.stopping = False
        self.thread = None

    def start(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.daemon = True
        self.thread.start()
        return self

    def stop(self):
        self.stopping = True
        if self.thread is not None:
            self.thread.join()
        for connection in self.connections + [self.listener]:
            connection.close()
        self.connections = []
        if self.error is not None:
            raise self.error

    def run(self):
        try:
            while not self.stopping:
                try:
                    ready = select.select([self.listener] + self.connections, [], [], self.interval)[0]
                except select.error as error:
                    if error.args[0] != errno.EINTR:
                        raise
                    ready = []
                for source in ready:
                    if source is self.listener:
                        self.connections.append(source.accept()[0])
                    else:
                        self.serve(source)
                self.poll()
        except Exception as error:  # kept for the test that looks
            self.error = error

    def poll(self):
        with self.lock:
            for ring in self.rings:
                if self.skims:
                    ring.skim()
                else:
                    ring.poll(self.keep)

    def serve(self, connection):
        try:
            packet = connection.recv(131072)
        except socket.error:
            packet = b''
        if packet.startswith(b'late\n'):
            length = struct.unpack('<I', packet[5:9])[0]
            self.late.append(frames.decode(packet[5:5 + length], 0))
            return
        lines = packet.decode('utf-8').split('\n')
        values = dict(line.split('=', 1) for line in lines[1:] if '=' in line)
        if not packet:
            self.connections.remove(connection)
            connection.close()
        elif lines[0] == 'attach':
            self.requests.append(values)
            if self.answers:
                try:
                    self.attach(connection, values)
                except socket.error:
                    pass  # it has gone meanwhile
        elif lines[0] == 'bell':
            self.bells += 1
        elif lines[0] == 'drain':
            self.poll()
            connection.send(b'ok\n')

    def attach(self, connection, values):
        known = [ring for ring in self.rings if values.get('ring') == '%016x' % ring.id]
        ring = known[0] if known else Ring(values)
        if not known:
            with self.lock:
                self.rings.append(ring)
        answer = ('ring\nring=%016x\nsize=%d\npid=%d\nfd=%d\n' % (ring.id, SIZE, os.getpid(), ring.number)).encode('ascii')
        if hasattr(connection, 'sendmsg'):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('<i', ring.number))]
            connection.sendmsg([answer], rights)
        else:
            connection.send(answer)

    def frames(self):
        self.poll()
        return self.late + [frame for ring in self.rings for frame in ring.frames]

    def wait(self, count, seconds=5):
        """Frames, as soon as there are so many."""
        until = time.time() + seconds
        while time.time() < until and self.error is None:
            found = self.frames()
            if len(found) >= count:
                return found
            time.sleep(0.005)
        if self.error is not None:
            raise self.error
        return self.frames()


def main():
    collector = Collector(sys.argv[1])
    collector.skims = '--skim' in sys.argv
    collector.keep = '--forget' not in sys.argv
    if '--busy' in sys.argv:
        collector.interval = 0
    collector.start()
    print('ready')
    sys.stdout.flush()
    for line in iter(sys.stdin.readline, ''):
        command = line.strip()
        if command == 'quit':
            break
        if collector.error is not None:
            answer = {'error': repr(collector.error)}
        elif command == 'frames':
            answer = collector.frames()
        else:
            collector.poll()
            answer = [ring.counters() for ring in collector.rings]
        print(json.dumps(answer))
        sys.stdout.flush()


if __name__ == '__main__':
    main()
