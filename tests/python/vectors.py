"""Writes tests/vectors/frames.txt with the tracer's own encoder: run it when the format gets a new version.

The JSON form is described in docs/protocol.md, section 4. The file is read and produced again by test_vectors.py
and by crates/wire/tests/vectors.rs.
"""
import binascii
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PATH = os.path.join(ROOT, 'tests', 'vectors', 'frames.txt')

TEXTS = ('name', 'method', 'path', 'host', 'client', 'agent', 'referer', 'user', 'error_class', 'error_message',
         'error_stack', 'tracestate')


def encode(wire, frame):
    """The bytes of a frame in its JSON form, without the gap behind it."""
    steps = b''.join([
        wire.step(step['kind'], step['flags'], step['parent'], step['start'], step['duration'], step['value'],
                  step['repeat'], int(step['span'], 16), b''.join([wire.encode(step[key]) for key in 'abcd']))
        for step in frame['steps']])
    head = b''.join([wire.encode(frame[name]) for name in TEXTS])
    body = wire.transaction(
        frame['flags'], int(frame['id'], 16), binascii.unhexlify(frame['trace'].encode('ascii')), int(frame['parent'], 16),
        frame['start'], frame['duration'], frame['cpu'], frame['status'], frame['type'], frame['cut'], frame['thread'],
        head, steps, len(frame['steps']), wire.attributes(frame['attributes']))
    data = wire.sealed(body, wire.KIND | frame['flags'] << 32, int(frame['ring'], 16), frame['sequence'], frame['position'])
    return data[:len(body) + 32]


def vectors():
    """(name, frame) of every vector."""
    stack = u'/srv/shop/views.py\x0041\x00order\x00return total(order)\n/srv/shop/cart.py\x007\x00total\x00raise ValueError("no price")\n'
    cause = u'/srv/shop/db.py\x0012\x00price\x00return prices[sku]\ncause\x00KeyError\x00\'A-1\'\n'
    yield 'smallest', frame()
    yield 'hello', frame(name='/', method='GET', path='/', host='localhost:8000', client='127.0.0.1', agent='curl/8.5.0', status=200,
                         duration=431, start=1790000000123456, thread=139872345634112)
    yield 'second lap of the ring', frame(position=262144 * 3 + 40, sequence=913, name='/orders/<int:pk>', path='/orders/7', method='GET', status=200)
    yield 'five kinds of steps', frame(
        name='/orders/<int:pk>', method='POST', path='/orders/7', status=201, duration=120345, steps=[
            step(kind=5, start=12, duration=900, a='db.example:5432/shop', b='postgresql'),
            step(kind=1, start=1000, duration=777, value=1, a='SELECT price FROM item WHERE sku = %s', b='postgresql', c='db.example:5432/shop'),
            step(kind=3, start=2000, duration=100000, a='shop.cart:Cart.total'),
            step(kind=2, parent=3, start=2100, duration=99000, value=200, span='00f067aa0ba902b7', a='http://stock.example:5001/stock/17', b='GET',
                 c='stock.example:5001'),
            step(kind=7, start=110000, value=13, a='low stock', b='shop.views', c='WARNING'),
            step(kind=4, start=111000, a='cart', b='3 items'),
            step(kind=9, start=112000, duration=50, value=250, repeat=25, a='SELECT * FROM item', b='sqlite', c=':memory:')])
    yield 'error with a cause', frame(
        flags=1, name='/fail', method='GET', path='/fail', status=500, error_class='ValueError', error_message='no price',
        error_stack=cause + stack, steps=[
            step(kind=1, flags=1, value=-1, a='SELECT 1 FROM nope', b='sqlite', c=':memory:', d='sqlite3.OperationalError: no such table: nope'),
            step(kind=6, start=77, a='KeyError', b="'A-1'", c=cause)])
    yield 'called by another service', frame(
        flags=6, trace='4bf92f3577b34da6a3ce929d0e0e4736', parent='00f067aa0ba902b7', tracestate='vendor=a,other=b', name='/stock/<int:sku>',
        path='/stock/17', method='GET', status=200)
    yield 'many alphabets', frame(name=u'/caf\xe9', path=u'/\ud55c\uad6d\uc5b4', user=u'\u5c71\u7530', agent=u'\U0001f600', attributes=[
        ['view', 'shop.views.order'], [u'\u30ad\u30fc', u'\u5024'], ['', '']])
    yield 'task without a method', frame(type=1, name='jobs:nightly', path='jobs:nightly', cpu=1234567, duration=60000000)
    yield 'largest numbers', frame(
        position=2 ** 63 - 8, flags=31, ring='f' * 16, sequence=2 ** 63 - 1, id='f' * 16, trace='f' * 32, parent='f' * 16, start=2 ** 53 - 1,
        duration=2 ** 53 - 1, cpu=2 ** 32 - 1, status=65535, type=255, cut=2 ** 32 - 1, thread=2 ** 53 - 1, steps=[
            step(kind=255, flags=255, parent=65535, start=2 ** 32 - 1, duration=2 ** 32 - 1, value=-2 ** 31, repeat=2 ** 32 - 1, span='f' * 16)])
    yield 'longest text', frame(name='n' * 30000, method='GET', path='/')
    for size in range(7):
        yield 'gap of %d bytes' % ((-124 - 24 - size) % 8), frame(name='n' * size)
    yield 'a hundred steps', frame(name='/report', method='GET', path='/report', cut=17, steps=[
        step(kind=1, start=n * 10, duration=7, value=n % 3, a='SELECT %d' % (n % 5), b='sqlite') for n in range(100)])


def frame(**given):
    made = {'position': 0, 'flags': 0, 'ring': '0123456789abcdef', 'sequence': 1, 'id': '1111111111111111',
            'trace': '22222222222222223333333333333333', 'parent': '0' * 16, 'start': 1790000000000000, 'duration': 0,
            'cpu': 0xffffffff, 'status': 0, 'type': 0, 'cut': 0, 'thread': 1, 'steps': [], 'attributes': []}
    made.update(dict.fromkeys(TEXTS, ''))
    made.update(given)
    return made


def step(**given):
    made = {'kind': 1, 'flags': 0, 'parent': 0, 'start': 0, 'duration': 0, 'value': 0, 'repeat': 1, 'span': '0' * 16,
            'a': '', 'b': '', 'c': '', 'd': ''}
    made.update(given)
    return made


def read():
    """(name, frame, bytes) of every line of the file."""
    with open(PATH, 'rb') as source:
        for line in source.read().decode('utf-8').splitlines():
            name, text, data = line.split('\t')
            yield name, json.loads(text), binascii.unhexlify(data.encode('ascii'))


def main():
    sys.path.insert(0, os.path.join(ROOT, 'bootstrap'))
    from whatap import wire
    with open(PATH, 'w') as out:
        for name, made in vectors():
            text = json.dumps(made, sort_keys=True, separators=(',', ':'))
            out.write('%s\t%s\t%s\n' % (name, text, binascii.hexlify(encode(wire, made)).decode('ascii')))


if __name__ == '__main__':
    main()
