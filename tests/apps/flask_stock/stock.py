"""Stock service: how many of an article lie in the warehouse."""
import fcntl
import logging
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import requests
from flask import Flask, abort, g, jsonify, request

log = logging.getLogger('stock')

DATABASE = os.environ.get('STOCK_DB') or os.path.join(os.path.dirname(os.path.abspath(__file__)), 'stock.sqlite3')
PEER_URL = os.environ.get('PEER_URL', 'http://127.0.0.1:8000/')
SUPPLIER_URL = 'http://127.0.0.1:1/prices'  # nobody listens there

SCHEMA = '''
CREATE TABLE IF NOT EXISTS article (sku INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS stock (sku INTEGER NOT NULL, shelf TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (sku, shelf));
'''

app = Flask(__name__)
pool = ThreadPoolExecutor(max_workers=4)


class OutOfStock(Exception):
    pass


def connect():
    return sqlite3.connect(DATABASE, timeout=30)


def prepare_database():
    """One process at a time: the sqlite3 of Python 2.7 fails when another one creates a table meanwhile."""
    if DATABASE == ':memory:':
        return fill_database()
    with open(DATABASE + '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fill_database()


def fill_database():
    connection = connect()
    try:
        connection.executescript(SCHEMA)
        with connection:
            connection.executemany(
                'INSERT OR IGNORE INTO article (sku, name, price) VALUES (?, ?, ?)',
                [(sku, 'article %d' % sku, 100 + sku * 7 % 900) for sku in range(1, 501)])
            connection.executemany(
                'INSERT OR IGNORE INTO stock (sku, shelf, amount) VALUES (?, ?, ?)',
                [(sku, shelf, sku * 13 % 40) for sku in range(1, 501) for shelf in ('A', 'B')])
    finally:
        connection.close()


def database():
    if 'database' not in g:
        g.database = connect()
    return g.database


@app.teardown_appcontext
def close_database(error):
    connection = g.pop('database', None)
    if connection is not None:
        connection.close()


@app.route('/')
def index():
    return 'hello'


@app.route('/stock/<int:sku>')
def stock(sku):
    article = database().execute('SELECT name, price FROM article WHERE sku = ?', (sku,)).fetchone()
    if article is None:
        abort(404)
    shelves = database().execute('SELECT shelf, amount FROM stock WHERE sku = ?', (sku,)).fetchall()
    return jsonify(sku=sku, name=article[0], price=article[1], amount=sum(row[1] for row in shelves))


@app.route('/sql')
def many_queries():
    count = min(request.args.get('n', 5, type=int), 1000)
    cursor = database().cursor()
    total = 0
    for sku in range(1, count + 1):
        cursor.execute('SELECT amount FROM stock WHERE sku = ?', (sku,))
        total += sum(row[0] for row in cursor)
    return jsonify(queries=count, total=total)


@app.route('/report')
def report():
    """Thousands of short statements, and one at the end that takes its time."""
    cursor = database().cursor()
    for number in range(2000):
        cursor.execute('SELECT amount FROM stock WHERE sku = ?', (1 + number % 500,))
    database().create_function('wait', 1, lambda seconds: time.sleep(seconds) or 1)
    database().execute('SELECT wait(0.3) FROM article LIMIT 1').fetchone()
    return 'reported'


@app.route('/slow')
def slow():
    time.sleep(min(request.args.get('seconds', 0.7, type=float), 30))
    return 'done'


@app.route('/fail')
def fail():
    reserve(sku=404, amount=3)
    return 'reserved'


def reserve(sku, amount):
    raise OutOfStock('only 2 of article %d left, %d wanted' % (sku, amount))


@app.route('/unreachable')
def unreachable():
    try:
        requests.get(SUPPLIER_URL, timeout=2)
    except requests.ConnectionError:
        log.warning('supplier does not answer, using the last known prices')
    return 'prices of yesterday'


@app.route('/chain')
def chain():
    answer = requests.get(PEER_URL, timeout=10)
    return jsonify(status=answer.status_code, bytes=len(answer.content))


@app.route('/thread')
def thread():
    return jsonify(total=sum(pool.map(amount_of, range(1, 5))))


def amount_of(sku):
    connection = connect()
    try:
        return connection.execute('SELECT sum(amount) FROM stock WHERE sku = ?', (sku,)).fetchone()[0]
    finally:
        connection.close()


@app.route('/bad-sql')
def bad_sql():
    try:
        database().execute('SELECT amount FROM warehouse WHERE sku = ?', (1,))
    except sqlite3.OperationalError as error:
        return 'handled: %s' % error
    return 'not raised'


prepare_database()
