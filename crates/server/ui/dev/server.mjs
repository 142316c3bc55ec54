// A small stand-in for whatap-server: made-up data, the real API's shapes, the real headers. For development and UI tests.
//
//   node dev/server.mjs [--port 6690] [--mode normal|hostile|empty|locked|nolive|flood] [--scale 1] [--idle 0] [--speed 1] [--dist DIR]

import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Data } from './data.mjs';
import { Flood } from './flood.mjs';

const options = Object.fromEntries(process.argv.slice(2).join(' ').split('--').filter(Boolean).map((o) => o.trim().split(/[ =]/)));
const mode = options.mode ?? 'normal';
const dist = options.dist ?? fileURLToPath(new URL('../dist', import.meta.url));
const data = new Data({ hostile: mode === 'hostile', empty: mode === 'empty', scale: Number(options.scale ?? 1), idle: Number(options.idle ?? 0) });
/** With `--mode flood`: answers what grows with the load; the rest is as small as ever. */
const flood = mode === 'flood' ? new Flood({ speed: Number(options.speed ?? 1) }) : null;
const TOKEN = 'secret-token';

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; " +
    "form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'same-origin',
};
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  try {
    if (url.pathname.startsWith('/api/v1/')) api(url, request, response);
    else file(url, response);
  } catch (error) {
    console.error(error);
    json(response, 500, { error: { code: 'internal', message: String(error) } });
  }
}).listen(Number(options.port ?? 6690), '127.0.0.1', function () {
  console.log(`http://127.0.0.1:${this.address().port}/  (${mode})`);
});

function file(url, response) {
  const path = normalize(join(dist, url.pathname));
  const found = path.startsWith(dist) && existsSync(path) && statSync(path).isFile() ? path : join(dist, 'index.html');
  response.writeHead(200, { ...HEADERS, 'content-type': TYPES[extname(found)] ?? 'application/octet-stream' });
  createReadStream(found).pipe(response);
}

function json(response, status, body) {
  response.writeHead(status, { ...HEADERS, 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

function api(url, request, response) {
  const path = url.pathname.slice('/api/v1'.length);
  const q = url.searchParams;
  const now = flood ? flood.now() : Date.now() * 1000;
  const scope = { service: q.getAll('service'), instance: q.getAll('instance') };
  const from = q.has('from') ? Number(q.get('from')) : now - seconds(q.get('since') ?? '10m') * 1e6;
  const to = Math.min(now, q.has('to') ? Number(q.get('to')) : now);
  const answer = (body) => (body ? json(response, 200, body) : json(response, 404, { error: { code: 'not_found', message: 'not found' } }));

  if (path === '/session') return session(request, response);
  if (mode === 'locked' && !(request.headers.cookie ?? '').includes('whatap_session=1')) {
    return json(response, 401, { error: { code: 'unauthorized', message: 'log in with the token of server.json' } });
  }
  if (flood && path === '/services') return answer(flood.services(now));
  if (flood && path === '/meters') return answer(flood.meters({ from, to: Number(q.get('to') ?? now), step: Number(q.get('step') ?? 5) }));
  if (flood && path === '/hitmap') return answer(flood.hitmap({ from, to: Number(q.get('to') ?? now), columns: Number(q.get('columns') ?? 120) }));
  if (flood && path === '/active') return answer(flood.active(now));
  if (path === '/services') return answer(data.services(now));
  if (path === '/meters') return answer({ ...data.meters({ from, to, step: Number(q.get('step') ?? 5), scope }), to: Number(q.get('to') ?? now) });
  if (path === '/hitmap') return answer({ ...data.hitmap({ from, to, columns: Number(q.get('columns') ?? 120), scope }), to: Number(q.get('to') ?? now) });
  if (path === '/transactions') {
    return answer(data.transactions({ from, to, scope, filter: Object.fromEntries(q), sort: q.get('sort') ?? 'end', order: q.get('order') ?? 'desc', limit: Number(q.get('limit') ?? 200), offset: Number(q.get('offset') ?? 0) }));
  }
  if (path.startsWith('/transactions/')) return answer(data.profile(path.slice(14)));
  if (path.startsWith('/traces/')) return answer(data.trace(path.slice(8)));
  if (path === '/active') return answer(data.active(now, scope));
  if (path === '/statistics') return answer(data.statistics({ kind: q.get('kind'), from, to, scope, sort: q.get('sort') ?? 'total', limit: Number(q.get('limit') ?? 100) }));
  if (path === '/lost') return answer(data.lost());
  if (path === '/self') return answer(self(now));
  if (path === '/live') return mode === 'nolive' ? json(response, 503, { error: { code: 'busy', message: 'too many streams' } }) : live(scope, request, response);
  return answer(null);
}

function session(request, response) {
  let body = '';
  request.on('data', (part) => (body += part));
  request.on('end', () => {
    if (request.method === 'DELETE') response.writeHead(204, { 'set-cookie': 'whatap_session=; Max-Age=0; Path=/' }).end();
    else if (safeToken(body) === TOKEN) response.writeHead(204, { 'set-cookie': 'whatap_session=1; HttpOnly; SameSite=Strict; Path=/' }).end();
    else json(response, 401, { error: { code: 'unauthorized', message: 'wrong token' } });
  });
}

function safeToken(body) {
  try {
    return JSON.parse(body).token;
  } catch {
    return null;
  }
}

function live(scope, request, response) {
  response.writeHead(200, { ...HEADERS, 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const send = () => response.write(`event: frame\ndata: ${JSON.stringify(flood ? flood.frame() : data.frame(Date.now() * 1000, scope))}\n\n`);
  send();
  const timer = setInterval(send, 1000 / (flood?.speed ?? 1));
  request.on('close', () => clearInterval(timer));
}

function self(now) {
  return {
    version: '3.0.0', pid: process.pid, started_us: data.since * 1e6, uptime_us: now - data.since * 1e6, now_us: now,
    doors: [{ door: 'agents', requests: 7201, bytes: 18_350_080, transactions: 43_000, steps: 215_000, logs: 120, points: 28_000, duplicates: 1, active_snapshots: 3600 }],
    rejected: [{ door: 'agents', reason: 'unauthorized', count: 1 }], connections: { open: 3, refused: 0, whatap_tcp: 0 }, streams: 1, memory_bytes: 52_428_800,
    storage: { data_bytes: 18_874_368, wal_bytes: 1_048_576, free_bytes: 53_687_091_200, hot_rows: 43_000, segments: 12, wal_lag_us: 0, appends_refused: 0, quarantined: 0, failed: 0, failure: null },
  };
}

function seconds(text) {
  const match = /^(\d+)([smhd])$/.exec(text);
  return match ? Number(match[1]) * { s: 1, m: 60, h: 3600, d: 86_400 }[match[2]] : 600;
}
