// Sends the made-up shop to a real server as OTLP/HTTP JSON: the last ten minutes at once, then each second as it passes.
//
//   node dev/feed.mjs --agents http://127.0.0.1:6600 --licence KEY [--minutes 10] [--once]

import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { Data } from './data.mjs';

const SECOND = 1_000_000;
const KINDS = { sql: 1, http: 2, method: 3, message: 4, dbc: 5, error: 6, log: 7, stack: 8, fetch: 9 };
const BATCH = 300;

const value = (v) => (typeof v === 'boolean' ? { boolValue: v } : typeof v === 'number' ? { intValue: String(v) } : Array.isArray(v) ? { arrayValue: { values: v.map(value) } } : { stringValue: v });
const attributes = (object) => Object.entries(object).filter(([, v]) => v !== '' && v !== null && v !== undefined).map(([key, v]) => ({ key, value: value(v) }));
const nano = (us) => `${us}000`;

function resource(one) {
  return {
    attributes: attributes({
      'service.name': one.service, 'service.instance.id': one.instance, 'host.name': one.host, 'process.pid': one.pid, 'process.runtime.name': 'CPython',
      'process.runtime.version': '3.11.7', 'telemetry.sdk.language': 'python', 'telemetry.sdk.name': 'whatap', 'telemetry.sdk.version': '3.0.0',
    }),
  };
}

function stackText(detail) {
  return [
    'Traceback (most recent call last):',
    ...detail.frames.flatMap((frame) => [`  File "${frame.file}", line ${frame.line}, in ${frame.function}`, `    ${frame.source}`]),
    `${detail.class}: ${detail.message}`,
  ].join('\n');
}

function stepId(one, step) {
  return step.span_id ?? createHash('sha256').update(`${one.id}${step.index}`).digest('hex').slice(0, 16);
}

/** A transaction's span, and those of its steps. */
function spans(data, one) {
  const profile = data.profile(one.id);
  const events = profile.error ? [{ timeUnixNano: nano(one.end_us), name: 'exception', attributes: attributes({ 'exception.type': profile.error.class, 'exception.message': profile.error.message, 'exception.stacktrace': stackText(profile.error) }) }] : [];
  const root = {
    traceId: one.trace_id, spanId: one.id, parentSpanId: one.parent_id ?? '', name: `${one.method} ${one.name}`.trim(), kind: one.type === 'task' ? 5 : 2,
    startTimeUnixNano: nano(one.start_us), endTimeUnixNano: nano(one.end_us), status: one.outcome === 'ok' ? {} : { code: 2 }, events,
    attributes: attributes({
      'whatap.tx': true, 'http.request.method': one.method, 'http.route': one.name, 'url.path': one.path, 'client.address': one.client, 'user_agent.original': one.user_agent,
      ...(one.status ? { 'http.response.status_code': one.status } : {}), 'enduser.id': one.user, 'thread.id': '140254', 'error.type': one.error_class,
      ...(one.cpu_us ? { 'whatap.cpu_us': one.cpu_us } : {}), 'whatap.sql.count': one.sql_count, 'whatap.sql.us': one.sql_us, 'whatap.fetch.us': one.fetch_us,
      'whatap.dbc.us': one.dbc_us, 'whatap.http.count': one.http_count, 'whatap.http.us': one.http_us, 'whatap.steps': profile.steps.length, 'whatap.steps.cut': one.steps_cut,
      'whatap.profile': one.has_profile, ...(one.outcome === 'aborted' ? { 'whatap.aborted': true } : {}), 'whatap.ring': '00c0ffee00c0ffee', 'whatap.seq': one.end_us,
    }),
  };
  const steps = profile.steps.filter((step) => ['sql', 'http', 'method', 'dbc', 'fetch'].includes(step.kind)).map((step) => ({
    traceId: one.trace_id, spanId: stepId(one, step), parentSpanId: step.parent === null ? one.id : stepId(one, profile.steps[step.parent]), name: step.kind, kind: step.kind === 'method' ? 1 : 3,
    startTimeUnixNano: nano(one.start_us + step.start_us), endTimeUnixNano: nano(one.start_us + step.start_us + step.elapsed_us), status: step.error ? { code: 2 } : {},
    attributes: attributes({
      'whatap.step': KINDS[step.kind], 'whatap.index': step.index, 'whatap.repeat': step.repeat, 'error.type': step.error ?? '',
      ...(['sql', 'fetch', 'dbc'].includes(step.kind) ? { 'db.system.name': step.system, 'db.query.text': step.kind === 'dbc' ? '' : step.text, 'server.address': 'db-1', 'server.port': 5432, 'db.namespace': 'shop' } : {}),
      ...(step.rows === null ? {} : { 'db.response.returned_rows': step.rows }),
      ...(step.kind === 'http' ? { 'http.request.method': step.method, 'url.full': step.text, 'server.address': step.target.split(':')[0], ...(step.status ? { 'http.response.status_code': step.status } : {}) } : {}),
      ...(step.kind === 'method' ? { 'code.function.name': step.text } : {}),
    }),
  }));
  return [root, ...steps];
}

async function post({ agents, licence }, path, body) {
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${licence}` };
  const answer = await fetch(agents + path, { method: 'POST', headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
}

async function send(server, data, from, to) {
  const all = [...data.between(from * SECOND, to * SECOND, { service: [], instance: [] })];
  for (let i = 0; i < all.length; i += BATCH) {
    const groups = new Map();
    for (const one of all.slice(i, i + BATCH)) {
      const key = `${one.instance} ${one.pid}`;
      const group = groups.get(key) ?? { resource: resource(one), scopeSpans: [{ spans: [] }] };
      group.scopeSpans[0].spans.push(...spans(data, one));
      groups.set(key, group);
    }
    await post(server, '/v1/traces', { resourceSpans: [...groups.values()] });
  }
  return all.length;
}

async function sendActive(server, data, now) {
  const active = data.active(now, { service: [], instance: [] });
  const byInstance = Map.groupBy ? Map.groupBy(active.rows, (row) => row.instance) : active.rows.reduce((map, row) => map.set(row.instance, [...(map.get(row.instance) ?? []), row]), new Map());
  const states = ['own', 'method', 'sql', 'http', 'dbc', 'socket'];
  const resourceLogs = active.by_instance.map((instance) => {
    const rows = byInstance.get(instance.instance) ?? [];
    const counts = Object.fromEntries(states.map((state) => [`whatap.active.${state}`, rows.filter((row) => row.state === state).length]));
    const map = (object) => ({ kvlistValue: { values: attributes(object) } });
    return {
      resource: resource({ service: instance.service, instance: instance.instance, host: 'web-1', pid: rows[0]?.pid ?? 4101 }),
      scopeLogs: [{ logRecords: [{
        timeUnixNano: nano(now), eventName: 'whatap.active',
        attributes: attributes({ 'whatap.active.count': rows.length, 'whatap.active.normal': instance.normal, 'whatap.active.slow': instance.slow, 'whatap.active.very_slow': instance.very_slow, ...counts }),
        body: { arrayValue: { values: rows.map((row) => map({ id: row.id, name: row.name, start_us: row.start_us, elapsed_us: row.elapsed_us, state: states.indexOf(row.state), text: row.text, thread: row.thread, pid: row.pid })) } },
      }] }],
    };
  });
  await post(server, '/v1/logs', { resourceLogs });
}

async function sendMetrics(server, data, now) {
  const gauge = (name, v, unit = '') => ({ name, unit, gauge: { dataPoints: [{ timeUnixNano: nano(now), ...(Number.isInteger(v) ? { asInt: String(v) } : { asDouble: v }) }] } });
  const meter = data.meter(now, [], now / SECOND);
  const resourceMetrics = data.services(now).flatMap((service) => service.instances).filter((one) => one.connected).map((one) => ({
    resource: resource({ service: one.service, instance: one.id, host: one.host, pid: one.pids[0] }),
    scopeMetrics: [{ metrics: [
      gauge('process.cpu.utilization', meter.cpu), gauge('process.memory.usage', one.memory_bytes), gauge('process.thread.count', one.threads), gauge('process.unix.file_descriptor.count', one.fds),
      gauge('system.cpu.utilization', one.host_cpu), gauge('system.memory.usage', one.host_memory_bytes), gauge('system.memory.limit', one.host_memory_limit), gauge('system.cpu.load_average.1m', one.load1),
    ] }],
  }));
  await post(server, '/v1/metrics', { resourceMetrics });
}

/** Returns how many transactions it sent. */
export async function feed(server, { minutes = 10, hostile = false } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const data = new Data({ since: now - minutes * 60, hostile });
  const count = await send(server, data, now - minutes * 60, now);
  await sendMetrics(server, data, now * SECOND);
  await sendActive(server, data, now * SECOND);
  return { data, count, sent: now };
}

async function main() {
  const options = Object.fromEntries(process.argv.slice(2).join(' ').split('--').filter(Boolean).map((o) => o.trim().split(/[ =]/)));
  const server = { agents: options.agents ?? 'http://127.0.0.1:6600', licence: options.licence };
  let { data, count, sent } = await feed(server, { minutes: Number(options.minutes ?? 10) });
  console.log(`${count} transactions sent`);
  if ('once' in options) return;
  setInterval(async () => {
    const now = Math.floor(Date.now() / 1000);
    try {
      await send(server, data, sent, now);
      sent = now;
      await sendActive(server, data, Date.now() * 1000);
      if (now % 5 === 0) await sendMetrics(server, data, Date.now() * 1000);
    } catch (error) {
      console.error(String(error));
    }
  }, 1000);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
