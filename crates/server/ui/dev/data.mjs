// A made-up shop for development and UI tests: every transaction follows from the second in which it ended,
// so any range can be answered at any time, and always the same.

const SECOND = 1_000_000;
const LEVELS = levels();

function levels() {
  const bounds = [];
  let upper = 0;
  for (const [count, ms] of [[40, 125], [20, 250], [20, 500], [20, 1000], [19, 2000]]) {
    for (let i = 0; i < count; i += 1) bounds.push((upper += ms * 1000));
  }
  return [...bounds, 0];
}

function generator(seed) {
  let a = (seed ^ 0x9e3779b9) >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const speedOf = (us) => (us < 3 * SECOND ? 'normal' : us < 8 * SECOND ? 'slow' : 'very_slow');

const hex = (value, digits) => Math.floor(value).toString(16).padStart(digits, '0').slice(-digits);

const INSTANCES = [
  { id: 'shop-web-1', service: 'shop', host: 'web-1', pids: [4101, 4102, 4103] },
  { id: 'shop-web-2', service: 'shop', host: 'web-2', pids: [4101, 4107] },
  { id: 'shop-worker-1', service: 'shop', host: 'jobs-1', pids: [911] },
  { id: 'stock-web-1', service: 'stock', host: 'web-1', pids: [4180, 4181] },
  { id: 'stock-web-2', service: 'stock', host: 'web-2', pids: [4188] },
  { id: 'stock-web-3', service: 'stock', host: 'web-3', pids: [], gone: true },
];

// weight, service, method, name, path, mean µs
const ROUTES = [
  [30, 'shop', 'GET', '/', () => '/', 38_000],
  [22, 'shop', 'GET', '/orders/<int:id>', (r) => `/orders/${Math.floor(r() * 900) + 100}`, 170_000],
  [8, 'shop', 'POST', '/pay', () => '/pay', 620_000],
  [3, 'shop', 'GET', '/report', () => '/report', 3_600_000],
  [10, 'shop', 'GET', '/search', (r) => `/search?q=${['lamp', 'chair', '책상', 'desk'][Math.floor(r() * 4)]}`, 290_000],
  [3, 'shop', 'GET', '/missing/<path:p>', () => '/missing/old-page', 9_000],
  [5, 'shop', '', 'shop.tasks.send_mail', () => '', 420_000],
  [19, 'stock', 'GET', '/stock/<sku>', (r) => `/stock/A-${Math.floor(r() * 90) + 10}`, 62_000],
];
const WEIGHT = ROUTES.reduce((sum, [weight]) => sum + weight, 0);

export class Data {
  constructor({ hostile = false, empty = false, since = Date.now() / 1000 - 4500, scale = 1, idle = 0 } = {}) {
    this.hostile = hostile;
    this.empty = empty;
    this.since = Math.floor(since);
    this.scale = scale;
    /** So many more instances, to see how crowded pages behave. */
    this.idle = idle;
    this.cache = new Map();
  }

  text(value) {
    if (!this.hostile || value === '') return value;
    return `${value}<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>{{7*7}}javascript:alert(1)"'>`;
  }

  /** Transactions that ended in this second of the epoch. */
  second(s) {
    if (this.empty || s < this.since) return [];
    let list = this.cache.get(s);
    if (list) return list;
    const r = generator(s);
    const wave = 1 + 0.35 * Math.sin(s / 47) + 0.2 * Math.sin(s / 11);
    list = [];
    const count = Math.max(0, Math.round((6 + 5 * r()) * wave * this.scale));
    for (let i = 0; i < count; i += 1) list.push(this.make(s, list.length, r));
    // Every four minutes a lock on orders is released: all that waited end together.
    if (s % 240 === 200) for (let i = 0; i < 26; i += 1) list.push(this.make(s, list.length, r, { route: 1, elapsed: (0.4 + 14 * r()) * SECOND, lock: true }));
    // For a minute in every five the bank does not answer: 10 s, then an error.
    if (s % 300 > 220 && s % 300 < 290 && r() < 0.35) {
      list.push(this.make(s, list.length, r, { route: 2, elapsed: 10_000_000 + r() * 90_000, fail: 'TimeoutError' }));
    }
    if (s % 331 === 17) list.push(this.make(s, list.length, r, { route: 3, elapsed: (5 + 9 * r()) * SECOND, aborted: true }));
    if (this.cache.size > 20_000) this.cache.clear();
    this.cache.set(s, list);
    return list;
  }

  make(s, index, r, force = {}) {
    let pick = r() * WEIGHT;
    let route = force.route ?? ROUTES.findIndex(([weight]) => (pick -= weight) < 0);
    if (route < 0) route = 0;
    const [, service, method, name, path, mean] = ROUTES[route];
    const noise = Math.exp((r() + r() + r() - 1.5) * 1.1);
    const tail = r() < 0.012 ? 6 : 1;
    const elapsed = Math.round(force.elapsed ?? mean * noise * tail);
    const candidates = INSTANCES.filter((one) => one.service === service && !one.gone && (one.id === 'shop-worker-1') === (route === 6));
    const instance = candidates[Math.floor(r() * candidates.length)];
    const refused = route === 2 && r() < 0.07;
    const missing = route === 5;
    const failed = Boolean(force.fail) || refused || (route === 7 && r() < 0.004);
    const errorClass = force.aborted ? '' : force.fail ?? (refused ? 'shop.errors.CardRefused' : failed ? 'KeyError' : '');
    const message = { TimeoutError: 'bank.example did not answer within 10 s', 'shop.errors.CardRefused': 'card was refused: limit exceeded', KeyError: "'A-77'" }[errorClass] ?? '';
    const sqlCount = [1, 15, 3, 4, 2, 0, 1, 1][route];
    const share = force.lock ? 0.97 : [0.35, 0.42, 0.08, 0.9, 0.62, 0, 0.1, 0.7][route];
    const http = route === 1 || route === 2 ? 1 : 0;
    const httpShare = force.lock ? 0.01 : force.fail ? 0.97 : [0, 0.38, 0.8][route] ?? 0;
    const end = s * SECOND + Math.floor(r() * SECOND);
    const id = `${hex(s, 8)}${hex(index, 4)}c0de`;
    const t = (value) => this.text(value);
    return {
      id, trace_id: hex(s * 7919, 12) + hex(index * 104_729 + 17, 10) + hex(s ^ 0x5bd1e995, 10), parent_id: route === 7 ? `${hex(s, 8)}${hex(index, 4)}5ba1` : null,
      end_us: end, start_us: end - elapsed, elapsed_us: elapsed,
      service: t(service), instance: t(instance.id), pid: instance.pids[Math.floor(r() * instance.pids.length)], host: t(instance.host),
      name: t(name), method, path: t(path(r)), status: force.aborted || route === 6 ? 0 : missing ? 404 : failed ? (force.fail ? 502 : 500) : route === 2 ? 201 : r() < 0.03 ? 304 : 200,
      type: route === 6 ? 'task' : 'web',
      outcome: force.aborted ? 'aborted' : failed ? 'error' : 'ok', error_class: t(errorClass), error_message: t(message),
      sql_count: sqlCount, sql_us: Math.round(elapsed * share * 0.95), fetch_us: Math.round(elapsed * share * 0.05), dbc_us: route === 3 ? 1200 : 0,
      http_count: http, http_us: Math.round(elapsed * httpShare), cpu_us: route % 2 ? Math.round(elapsed * 0.04 + 900) : null,
      client: t(`203.0.113.${Math.floor(r() * 60) + 1}`), user_agent: t('Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0'), referer: route === 1 ? t('https://shop.example/') : '',
      user: r() < 0.4 ? t(['anna', 'minjun', 'jiwoo', 'ben'][Math.floor(r() * 4)]) : '',
      apdex: failed || force.aborted || elapsed > 4_800_000 ? 'frustrated' : elapsed > 1_200_000 ? 'tolerating' : 'satisfied',
      steps: route === 5 ? 0 : sqlCount + http + 2, steps_cut: force.lock ? 4 : 0, has_profile: route !== 5 && (route !== 0 || r() < 0.6),
      route, lock: Boolean(force.lock),
    };
  }

  *between(from, to, scope) {
    for (let s = Math.max(this.since, Math.floor(from / SECOND)); s * SECOND < to; s += 1) {
      for (const one of this.second(s)) if (one.end_us >= from && one.end_us < to && inScope(one, scope)) yield one;
    }
  }

  find(id) {
    const s = parseInt(id.slice(0, 8), 16);
    return this.second(s).find((one) => one.id === id) ?? null;
  }

  // --- answers ----------------------------------------------------------------------------------------------------

  meter(t, list, at) {
    const times = list.filter((one) => one.outcome !== 'aborted').map((one) => one.elapsed_us).sort((a, b) => a - b);
    const done = list.filter((one) => one.outcome !== 'aborted');
    const at_ = (q) => (times.length ? times[Math.min(times.length - 1, Math.floor(times.length * q))] : 0);
    const count = (test) => done.filter(test).length;
    const sum = (key) => done.reduce((total, one) => total + one[key], 0);
    const satisfied = count((one) => one.apdex === 'satisfied');
    const tolerating = count((one) => one.apdex === 'tolerating');
    const status = [1, 2, 3, 4, 5].map((k) => count((one) => Math.floor(one.status / 100) === k));
    return {
      t, count: done.length, error: count((one) => one.outcome === 'error'), aborted: list.length - done.length,
      sum_us: sum('elapsed_us'), max_us: times.at(-1) ?? 0, p50_us: at_(0.5), p90_us: at_(0.9), p95_us: at_(0.95), p99_us: at_(0.99),
      apdex: done.length ? (satisfied + tolerating / 2) / done.length : null, satisfied, tolerating, frustrated: done.length - satisfied - tolerating,
      status: [...status, count((one) => one.status === 0)],
      sql_count: sum('sql_count'), sql_us: sum('sql_us'), http_count: sum('http_count'), http_us: sum('http_us'), dbc_us: sum('dbc_us'),
      cpu: this.empty || t / SECOND < this.since ? null : 0.22 + 0.12 * Math.sin(at / 40) + 0.04 * Math.sin(at / 5),
      memory_bytes: this.empty || t / SECOND < this.since ? null : Math.round((410 + 30 * Math.sin(at / 90)) * 1024 * 1024),
    };
  }

  meters({ from, to, step, scope }) {
    const width = step * SECOND;
    const begin = Math.floor(from / width) * width;
    const points = [];
    const all = [];
    for (let t = begin; t < to; t += width) {
      const list = [...this.between(Math.max(t, from), Math.min(t + width, to), scope)];
      all.push(...list);
      points.push(this.meter(t, list, t / SECOND));
    }
    return { from: begin, to, step_us: width, points, total: this.meter(begin, all, to / SECOND) };
  }

  hitmap({ from, to, columns, scope }) {
    const column = Math.max(5, Math.ceil((to - from) / columns / SECOND / 5) * 5) * SECOND;
    const begin = Math.floor(from / column) * column;
    const found = new Map();
    let count = 0;
    let error = 0;
    for (const one of this.between(from, to, scope)) {
      const key = Math.floor((one.end_us - begin) / column) * 1000 + levelOf(one.elapsed_us);
      const cell = found.get(key) ?? [Math.floor(key / 1000), key % 1000, 0, 0];
      const failed = one.outcome !== 'ok';
      cell[failed ? 3 : 2] += 1;
      count += 1;
      error += failed ? 1 : 0;
      found.set(key, cell);
    }
    return { from: begin, to, column_us: column, levels: LEVELS, cells: [...found.values()], count, error };
  }

  transactions({ from, to, scope, filter, sort, order, limit, offset }) {
    const rows = [...this.between(from, to, scope)].filter((one) => matches(one, filter));
    const key = { end: 'end_us', elapsed: 'elapsed_us', sql: 'sql_us', http: 'http_us' }[sort] ?? 'end_us';
    rows.sort((a, b) => (order === 'asc' ? a[key] - b[key] : b[key] - a[key]));
    const groups = new Map();
    for (const one of rows) {
      const id = [one.service, one.instance, one.method, one.name].join('\n');
      const group = groups.get(id) ?? { service: one.service, instance: one.instance, name: one.name, method: one.method, count: 0, error: 0, sum: 0, mean_us: 0, max_us: 0 };
      group.count += 1;
      group.error += one.outcome === 'ok' ? 0 : 1;
      group.sum += one.elapsed_us;
      group.mean_us = Math.round(group.sum / group.count);
      group.max_us = Math.max(group.max_us, one.elapsed_us);
      groups.set(id, group);
    }
    return {
      total: rows.length, total_error: rows.filter((one) => one.outcome !== 'ok').length, total_profile: rows.filter((one) => one.has_profile).length,
      rows: rows.slice(offset, offset + limit).map(strip), groups: [...groups.values()].map(({ sum: _, ...group }) => group).sort((a, b) => b.count - a.count),
    };
  }

  profile(id) {
    const one = this.find(id);
    if (!one) return null;
    const steps = one.has_profile ? this.steps(one) : [];
    const t = (value) => this.text(value);
    const leaf = (kind) => steps.filter((step) => step.kind === kind).reduce((sum, step) => sum + step.elapsed_us, 0);
    const sql = leaf('sql'), fetch = leaf('fetch'), dbc = leaf('dbc'), http = leaf('http');
    const own = Math.max(0, Math.round((one.elapsed_us - sql - fetch - dbc - http) * 0.6));
    const error = one.error_class
      ? {
          class: one.error_class, message: one.error_message,
          frames: [
            { file: t('/srv/shop/.venv/lib/python3.11/site-packages/django/core/handlers/base.py'), line: 197, function: t('_get_response'), source: t('response = wrapped_callback(request, *callback_args, **callback_kwargs)') },
            { file: t('/srv/shop/shop/views.py'), line: 88, function: t('pay'), source: t('receipt = bank.charge(card, order.total)') },
            { file: t('/srv/shop/shop/bank.py'), line: 31, function: t('charge'), source: t('raise CardRefused(answer["reason"]) from error') },
          ],
          causes: [
            {
              class: t('http.client.RemoteDisconnected'), message: t('Remote end closed connection without response'),
              frames: [{ file: t('/srv/shop/shop/bank.py'), line: 27, function: t('charge'), source: t('answer = session.post(URL, json=body, timeout=10)') }], causes: [],
            },
          ],
        }
      : null;
    const logs = one.has_profile
      ? [
          { t: one.start_us + 2_000, severity: 9, logger: t('shop.orders'), message: t(`order opened by ${one.user || 'guest'}`) },
          { t: one.start_us + Math.round(one.elapsed_us * 0.7), severity: one.error_class ? 17 : 13, logger: t('shop.stock'), message: t(one.error_class ? one.error_message : 'stock is low: A-77') },
        ]
      : [];
    return {
      transaction: strip(one), steps, error, logs,
      attributes: { 'thread.id': t('140254'), 'whatap.ring': '00c0ffee00c0ffee', 'server.address': t('shop.example'), 'process.runtime.version': t('3.11.7') },
      breakdown: { sql_us: sql, fetch_us: fetch, dbc_us: dbc, http_us: http, method_us: 0, own_us: own, gap_us: Math.max(0, one.elapsed_us - sql - fetch - dbc - http - own) },
    };
  }

  steps(one) {
    const t = (value) => this.text(value);
    const steps = [];
    const total = one.elapsed_us;
    const add = (kind, parent, from, share, part) => {
      steps.push({
        index: steps.length, parent, kind, start_us: Math.round(total * from), elapsed_us: Math.round(total * share), text: '', target: '', system: '',
        method: '', status: null, rows: null, repeat: 1, error: null, span_id: null, callee: null, ...part,
      });
      return steps.length - 1;
    };
    const db = { target: t('db-1:5432/shop'), system: 'postgresql' };
    if (one.outcome === 'aborted') {
      // All that is known of one that died: what it was in, by its first bytes.
      add('sql', null, 0.04, 0.96, { text: t("SELECT date_trunc('day', o.created) AS d, sum(i.price * i.quantity) AS r"), error: t('the process ended while this ran') });
      return steps;
    }
    if (one.route === 3) add('dbc', null, 0.004, 0.001, { ...db, text: t('db-1:5432/shop') });
    const view = add('method', null, 0.01, 0.97, { text: t(['shop.views:home', 'shop.views:OrderView.get', 'shop.views:pay', 'shop.views:report', 'shop.views:search', '', 'shop.tasks:send_mail', 'stock.app:stock'][one.route] ?? 'view') });
    const sql = one.sql_us / total;
    if (one.route === 1) {
      add('sql', view, 0.03, one.lock ? sql * 0.9 : 0.06, { ...db, text: t('SELECT id, user_id, total, state FROM orders WHERE id = # FOR UPDATE'), rows: 1 });
      add('fetch', view, 0.03 + (one.lock ? sql * 0.9 : 0.06), 0.004, { ...db, text: t('SELECT id, user_id, total, state FROM orders WHERE id = # FOR UPDATE'), rows: 1 });
      const each = one.lock ? 0.004 : 0.022;
      const base = one.lock ? 0.92 : 0.12;
      for (let i = 0; i < 12; i += 1) add('sql', view, base + i * each * 1.15, each, { ...db, text: t('SELECT sku, title, price FROM items WHERE order_id = # AND position = #'), rows: 1 });
      if (!one.lock) add('http', view, 0.46, one.http_us / total, { text: t('http://stock:8000/stock/A-77?fresh=1'), target: t('stock:8000'), method: 'GET', status: 200, span_id: `${one.id.slice(0, 12)}5ba1`, callee: null });
      if (!one.lock) add('message', view, 0.9, 0, { text: t(`cache miss: order ${one.path.slice(8, 12)}`) });
    } else if (one.route === 3) {
      add('sql', view, 0.03, sql * 0.72, { ...db, text: t("SELECT date_trunc('day', o.created) AS d, sum(i.price * i.quantity) AS revenue, count(DISTINCT o.user_id) AS buyers\nFROM orders o JOIN items i ON i.order_id = o.id\nWHERE o.created > now() - interval # AND o.state IN (#)\nGROUP BY d ORDER BY d DESC"), rows: 90 });
      add('fetch', view, 0.03 + sql * 0.72, sql * 0.05, { ...db, text: t('fetch'), rows: 90 });
      add('sql', view, 0.08 + sql * 0.77, sql * 0.15, { ...db, text: t('SELECT sku, sum(quantity) FROM items GROUP BY sku ORDER BY # DESC LIMIT #'), rows: 20 });
      add('stack', view, 0.3, 0, {
        text: t([
          ['/srv/shop/.venv/lib/python3.11/site-packages/django/core/handlers/base.py', 197, '_get_response', 'response = wrapped_callback(request)'],
          ['/srv/shop/shop/views.py', 41, 'report', 'rows = revenue_by_day(month)'],
          ['/srv/shop/.venv/lib/python3.11/site-packages/psycopg/cursor.py', 97, 'execute', 'self._conn.wait(self._execute_gen(query))'],
        ].map((frame) => frame.join('\0')).join('\n')),
      });
      add('method', view, 0.9, 0.06, { text: t('shop.reports:render_pdf') });
    } else if (one.route === 2) {
      add('sql', view, 0.02, 0.03, { ...db, text: t('SELECT * FROM cards WHERE user_id = #'), rows: 1 });
      add('http', view, 0.06, one.http_us / total, { text: t('https://bank.example/v2/charge'), target: t('bank.example:443'), method: 'POST', status: one.error_class.startsWith('Timeout') ? null : 200, error: one.error_class.startsWith('Timeout') ? one.error_class : null });
      if (one.error_class) add('error', view, 0.95, 0, { text: `${one.error_class}: ${one.error_message}`, error: one.error_class });
      else add('sql', view, 0.9, 0.04, { ...db, text: t('INSERT INTO payments (order_id, amount, receipt) VALUES (#, #, #)') });
    } else {
      for (let i = 0; i < one.sql_count; i += 1) {
        add('sql', view, 0.05 + i * 0.3, sql / Math.max(1, one.sql_count), { ...db, text: t(['SELECT title, price FROM products WHERE featured ORDER BY rank LIMIT #', "SELECT * FROM products WHERE to_tsvector('simple', title) @@ plainto_tsquery(#) LIMIT #"][i % 2]), rows: 12 });
      }
      if (one.error_class) add('error', view, 0.98, 0, { text: `${one.error_class}: ${one.error_message}`, error: one.error_class });
    }
    return steps;
  }

  trace(traceId, hint) {
    const one = hint ? this.find(hint) : this.findTrace(traceId);
    if (!one) return null;
    const transactions = [strip(one)];
    const spans = [{ id: one.id, parent_id: null, transaction: one.id, service: one.service, kind: 'web', name: `${one.method} ${one.name}`.trim(), start_us: one.start_us, elapsed_us: one.elapsed_us, error: one.outcome !== 'ok' }];
    for (const step of one.has_profile ? this.steps(one) : []) {
      if (!['sql', 'http', 'method'].includes(step.kind)) continue;
      const id = step.span_id ?? `${one.id.slice(0, 12)}${hex(step.index + 1, 4)}`;
      const parent = step.parent === null ? one.id : `${one.id.slice(0, 12)}${hex(step.parent + 1, 4)}`;
      spans.push({ id, parent_id: parent, transaction: one.id, service: one.service, kind: step.kind, name: `${step.method} ${step.text}`.trim(), start_us: one.start_us + step.start_us, elapsed_us: step.elapsed_us, error: step.error !== null });
      if (step.kind === 'http' && one.route === 1) {
        const elapsed = Math.round(step.elapsed_us * 0.86);
        const start = one.start_us + step.start_us + Math.round(step.elapsed_us * 0.06);
        const callee = { ...strip(one), id: `${one.id.slice(0, 12)}ca11`, parent_id: id, start_us: start, elapsed_us: elapsed, end_us: start + elapsed, service: this.text('stock'), instance: this.text('stock-web-1'), name: this.text('/stock/<sku>'), path: this.text('/stock/A-77'), outcome: 'ok', error_class: '' };
        transactions.push(callee);
        spans.push({ id: callee.id, parent_id: id, transaction: callee.id, service: callee.service, kind: 'web', name: `GET ${callee.name}`, start_us: start, elapsed_us: elapsed, error: false });
        spans.push({ id: `${one.id.slice(0, 12)}ca12`, parent_id: callee.id, transaction: callee.id, service: callee.service, kind: 'sql', name: this.text('SELECT quantity FROM stock WHERE sku = #'), start_us: start + Math.round(elapsed * 0.1), elapsed_us: Math.round(elapsed * 0.7), error: false });
      }
    }
    return { trace_id: traceId, transactions, spans };
  }

  findTrace(traceId) {
    for (const list of this.cache.values()) {
      const one = list.find((each) => each.trace_id === traceId);
      if (one) return one;
    }
    return null;
  }

  active(now, scope) {
    const rows = [];
    const from = Math.floor(now / SECOND);
    for (let s = from; s < from + 20; s += 1) {
      for (const one of this.second(s)) {
        if (one.start_us > now || one.end_us < now || !inScope(one, scope)) continue;
        const elapsed = now - one.start_us;
        const done = elapsed / one.elapsed_us;
        const state = one.http_count && done > 0.45 ? 'http' : one.sql_count && done > 0.05 ? 'sql' : done > 0.9 ? 'method' : 'own';
        const text = state === 'sql' ? this.text(one.route === 3 ? "SELECT date_trunc('day', o.created) AS d, sum(i.p" : 'SELECT id, user_id, total, state FROM orders WHE') : state === 'http' ? this.text(one.route === 2 ? 'https://bank.example/v2/charge' : 'http://stock:8000/stock/A-77') : '';
        rows.push({ id: one.id, service: one.service, instance: one.instance, pid: one.pid, name: `${one.method} ${one.name}`.trim(), start_us: one.start_us, elapsed_us: elapsed, speed: speedOf(elapsed), state, text, thread: String(140_250 + (one.pid % 7)) });
      }
    }
    rows.sort((a, b) => b.elapsed_us - a.elapsed_us);
    const total = { normal: 0, slow: 0, very_slow: 0 };
    const states = { own: 0, method: 0, sql: 0, http: 0, dbc: 0, socket: 0 };
    const instances = INSTANCES.filter((one) => !one.gone && !this.empty)
      .map((one) => ({ service: this.text(one.service), instance: this.text(one.id), normal: 0, slow: 0, very_slow: 0 }))
      .filter((one) => inScope(one, scope));
    for (let i = 0; i < this.idle; i += 1) instances.push({ service: 'shop', instance: `shop-extra-${i}`, normal: i % 3, slow: Number(i % 17 === 0), very_slow: Number(i % 41 === 0) });
    for (const row of rows) {
      total[row.speed] += 1;
      states[row.state] += 1;
      const instance = instances.find((one) => one.instance === row.instance);
      if (instance) instance[row.speed] += 1;
    }
    return { t: now, available: !this.empty, count: rows.length, ...total, slow_from_us: 3 * SECOND, very_slow_from_us: 8 * SECOND, states, by_instance: instances, rows: rows.slice(0, 500) };
  }

  services(now) {
    if (this.empty) return [];
    const recent = [...this.between(now - 60 * SECOND, now, { service: [], instance: [] })];
    return ['shop', 'stock'].map((name) => {
      const mine = recent.filter((one) => one.service === this.text(name));
      return {
        name: this.text(name),
        instances: INSTANCES.filter((one) => one.service === name).map((one, i) => ({
          id: this.text(one.id), service: this.text(name), host: this.text(one.host), pids: one.pids, runtime: this.text('CPython 3.11.7'), agent: this.text('whatap 3.0.0'),
          first_seen_us: this.since * SECOND, last_seen_us: one.gone ? now - 900 * SECOND : now - 400_000, connected: !one.gone,
          cpu: one.gone ? null : 0.12 + i * 0.05, memory_bytes: one.gone ? null : (70 + i * 22) * 1024 * 1024, threads: one.gone ? null : 4 + i, fds: one.gone ? null : 23 + i,
          host_cpu: one.gone ? null : 0.31, host_memory_bytes: one.gone ? null : 3 * 1024 ** 3, host_memory_limit: one.gone ? null : 8 * 1024 ** 3, load1: one.gone ? null : 0.84,
        })),
        tps: mine.length / 60, error_rate: mine.length ? mine.filter((one) => one.outcome === 'error').length / mine.length : 0, last_seen_us: now,
      };
    });
  }

  statistics({ kind, from, to, scope, sort, limit }) {
    const found = new Map();
    const add = (key, service, system, elapsed, one, failed, rows = 0) => {
      const id = `${service}\n${key}`;
      const row = found.get(id) ?? { key, service, system, count: 0, error: 0, mean_us: 0, total_us: 0, max_us: 0, p95_us: 0, rows: 0, callers: [], sample: one.id, first_us: one.end_us, last_us: one.end_us };
      row.count += 1;
      row.error += failed ? 1 : 0;
      row.total_us += elapsed;
      if (elapsed > row.max_us) [row.max_us, row.sample] = [elapsed, one.id];
      row.mean_us = Math.round(row.total_us / row.count);
      row.p95_us = Math.round(row.mean_us * 1.8);
      row.rows += rows;
      const caller = `${one.method} ${one.name}`.trim();
      if (kind !== 'transaction' && !row.callers.includes(caller)) row.callers.push(caller);
      row.last_us = Math.max(row.last_us, one.end_us);
      found.set(id, row);
    };
    for (const one of this.between(from, to, scope)) {
      const failed = one.outcome !== 'ok';
      if (kind === 'transaction') add(`${one.method} ${one.name}`.trim(), one.service, '', one.elapsed_us, one, failed);
      else if (kind === 'error') one.error_class && add(one.error_class, one.service, '', one.elapsed_us, one, true);
      else for (const step of this.steps(one)) {
        if (step.kind === kind) add(kind === 'http' ? `${step.method} ${step.text.split('?')[0]}` : step.text, one.service, kind === 'http' ? step.target : step.system, step.elapsed_us, one, step.error !== null, step.rows ?? 0);
      }
    }
    const rows = [...found.values()];
    const key = { total: 'total_us', count: 'count', mean: 'mean_us', max: 'max_us', error: 'error' }[sort] ?? 'total_us';
    rows.sort((a, b) => b[key] - a[key]);
    return { kind, total_us: rows.reduce((sum, row) => sum + row.total_us, 0), rows: rows.slice(0, limit) };
  }

  lost() {
    if (this.empty) return { total: 0, rows: [], ended: 0, aborted: 0 };
    return { total: 7, rows: [{ where: this.text('tracer'), cause: this.text('queue_full'), count: 5 }, { where: this.text('collector'), cause: this.text('spool_full'), count: 2 }], ended: 43_000, aborted: 3 };
  }

  frame(now, scope) {
    const step = Math.floor(now / SECOND / 5) * 5 * SECOND;
    const second = Math.floor(now / SECOND) - 1;
    const hits = this.hitmap({ from: step - 5 * SECOND, to: now, columns: 120, scope }).cells.map(([column, level, hit, error]) => [step - 5 * SECOND + column * 5 * SECOND, level, hit, error]);
    return {
      t: now,
      meter: this.meter(second * SECOND, [...this.between(second * SECOND, (second + 1) * SECOND, scope)], second),
      meters: this.meter(step, [...this.between(step, now, scope)], step / SECOND),
      hits, active: this.active(now, scope), lost: this.lost().total, services: this.empty ? 0 : 2,
    };
  }
}

function levelOf(elapsed) {
  const level = LEVELS.findIndex((upper) => upper !== 0 && elapsed < upper);
  return level < 0 ? LEVELS.length - 1 : level;
}

function inScope(one, scope) {
  return (!scope.service.length || scope.service.includes(one.service)) && (!scope.instance.length || scope.instance.includes(one.instance));
}

function matches(one, f) {
  if (f.min_us && one.elapsed_us < Number(f.min_us)) return false;
  if (f.max_us && one.elapsed_us > Number(f.max_us)) return false;
  if (f.name && f.name !== one.name && f.name !== `${one.method} ${one.name}`) return false;
  if (f.method && f.method !== one.method) return false;
  if (f.status && !(f.status.endsWith('xx') ? Math.floor(one.status / 100) === Number(f.status[0]) : one.status === Number(f.status))) return false;
  if (f.error === 'any' && one.outcome === 'ok') return false;
  if (f.error === 'none' && one.outcome !== 'ok') return false;
  if (f.error && f.error !== 'any' && f.error !== 'none' && one.error_class !== f.error) return false;
  if (f.trace_id && one.trace_id !== f.trace_id) return false;
  if (f.client && one.client !== f.client) return false;
  if (f.aborted && (f.aborted === 'true') !== (one.outcome === 'aborted')) return false;
  if (f.q) {
    const text = [one.id, one.name, one.path, one.client, one.user, one.error_class, one.error_message].join('\n').toLowerCase();
    if (!text.includes(f.q.toLowerCase())) return false;
  }
  return true;
}

function strip({ route: _r, lock: _l, ...one }) {
  return one;
}
