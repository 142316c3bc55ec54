// The recorded answers of the server have the fields that the page's types promise.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { LEVELS } from '../lib/hitmap';
import { breakdownParts, httpSummary, sqlSummary, stepRows, traceRows } from '../lib/profile';
import type {
  Active, ActiveInstance, ActiveRow, ErrorDetail, Group, Hitmap, Instance, LiveFrame, Log, Lost, Meter, Meters, Profile, Self, Service,
  StackFrame, Statistics, StatisticsRow, Step, Trace, TraceSpan, Transaction, TransactionList,
} from './types';

const RECORDED = join('..', 'tests', 'api');

function recorded(name: string): unknown {
  return JSON.parse(readFileSync(join(RECORDED, `${name}.json`), 'utf8'));
}

/** One object of each type; `null` stands for a field that may be null, and an empty list for one of any length. */
const METER: Meter = {
  t: 0, count: 0, error: 0, aborted: 0, sum_us: 0, max_us: 0, p50_us: 0, p90_us: 0, p95_us: 0, p99_us: 0, apdex: null, satisfied: 0, tolerating: 0,
  frustrated: 0, status: [0, 0, 0, 0, 0, 0], sql_count: 0, sql_us: 0, http_count: 0, http_us: 0, dbc_us: 0, cpu: null, memory_bytes: null,
};
const METERS: Meters = { from: 0, to: 0, step_us: 0, points: [METER], total: METER };
const HITMAP: Hitmap = { from: 0, to: 0, column_us: 0, levels: [0], cells: [[0, 0, 0, 0]], count: 0, error: 0 };
const TRANSACTION: Transaction = {
  id: '', trace_id: '', parent_id: null, end_us: 0, start_us: 0, elapsed_us: 0, service: '', instance: '', pid: 0, host: '', name: '', method: '',
  path: '', status: 0, type: 'web', outcome: 'ok', error_class: '', error_message: '', sql_count: 0, sql_us: 0, fetch_us: 0, dbc_us: 0, http_count: 0,
  http_us: 0, cpu_us: null, client: '', user_agent: '', referer: '', user: '', apdex: 'satisfied', steps: 0, steps_cut: 0, has_profile: true,
};
const GROUP: Group = { service: '', instance: '', name: '', method: '', count: 0, error: 0, mean_us: 0, max_us: 0 };
const LIST: TransactionList = { total: 0, total_error: 0, total_profile: 0, rows: [TRANSACTION], groups: [GROUP] };
const STEP: Step = {
  index: 0, parent: null, kind: 'sql', start_us: 0, elapsed_us: 0, text: '', target: '', system: '', method: '', status: null, rows: null, repeat: 0,
  error: null, span_id: null, callee: null,
};
const FRAME: StackFrame = { file: '', line: 0, function: '', source: '' };
const ERROR: ErrorDetail = { class: '', message: '', frames: [FRAME], causes: [] };
const LOG: Log = { t: 0, severity: 0, logger: '', message: '' };
const BREAKDOWN = { sql_us: 0, fetch_us: 0, dbc_us: 0, http_us: 0, method_us: 0, own_us: 0, gap_us: 0 };
const PROFILE: Profile = { transaction: TRANSACTION, steps: [STEP], error: null, logs: [LOG], attributes: {}, breakdown: BREAKDOWN };
const SPAN: TraceSpan = { id: '', parent_id: null, transaction: '', service: '', kind: '', name: '', start_us: 0, elapsed_us: 0, error: false };
const TRACE: Trace = { trace_id: '', transactions: [TRANSACTION], spans: [SPAN] };
const ROW: ActiveRow = { id: '', service: '', instance: '', pid: 0, name: '', start_us: 0, elapsed_us: 0, speed: 'normal', state: 'own', text: '', thread: '' };
const BY: ActiveInstance = { service: '', instance: '', normal: 0, slow: 0, very_slow: 0 };
const ACTIVE: Active = {
  t: 0, available: true, count: 0, normal: 0, slow: 0, very_slow: 0, slow_from_us: null, very_slow_from_us: null, states: { own: 0, method: 0, sql: 0, http: 0, dbc: 0, socket: 0 },
  by_instance: [BY], rows: [ROW],
};
const STATISTIC: StatisticsRow = {
  key: '', service: '', system: '', count: 0, error: 0, mean_us: 0, total_us: 0, max_us: 0, p95_us: 0, rows: 0, callers: [''], sample: '', first_us: 0, last_us: 0,
};
const STATISTICS: Statistics = { kind: 'sql', total_us: 0, rows: [STATISTIC] };
const INSTANCE: Instance = {
  id: '', service: '', host: '', pids: [0], runtime: '', agent: '', first_seen_us: 0, last_seen_us: 0, connected: true, cpu: null, memory_bytes: null,
  threads: null, fds: null, host_cpu: null, host_memory_bytes: null, host_memory_limit: null, load1: null,
};
const SERVICE: Service = { name: '', instances: [INSTANCE], tps: 0, error_rate: 0, last_seen_us: 0 };
const LOST: Partial<Lost> = { total: 0, rows: [{ where: '', cause: '', count: 0 }] };
const LIVE: LiveFrame = { t: 0, meter: METER, meters: METER, hits: [[0, 0, 0, 0]], active: ACTIVE, lost: 0, services: 0 };
const SELF: Self = {
  version: '', pid: 0, started_us: 0, uptime_us: 0, now_us: 0,
  doors: [{ door: '', requests: 0, bytes: 0, transactions: 0, steps: 0, logs: 0, points: 0, duplicates: 0, active_snapshots: 0 }],
  rejected: [{ door: '', reason: '', count: 0 }], connections: { open: 0, refused: 0, whatap_tcp: 0 }, streams: 0, memory_bytes: 0,
  storage: { data_bytes: 0, wal_bytes: 0, free_bytes: 0, hot_rows: 0, segments: 0, wal_lag_us: 0, appends_refused: 0, quarantined: 0, failed: 0, failure: null },
};

/** Where a value is not what the sample promises. What the server sends beyond it is its business. */
function differences(sample: unknown, value: unknown, path = '$'): string[] {
  if (sample === null) return value === undefined ? [`${path} is missing`] : [];
  if (Array.isArray(sample)) {
    if (!Array.isArray(value)) return [`${path} is no list`];
    if (sample.length === 0) return [];
    const fixed = sample.length > 1;
    if (fixed && value.length !== sample.length) return [`${path} has ${value.length} entries`];
    return value.flatMap((one, i) => differences(sample[fixed ? i : 0], one, `${path}[${i}]`));
  }
  if (typeof sample === 'object') {
    if (typeof value !== 'object' || value === null) return [`${path} is no object`];
    return Object.entries(sample as object).flatMap(([key, one]) => differences(one, (value as Record<string, unknown>)[key], `${path}.${key}`));
  }
  return typeof value === typeof sample ? [] : [`${path} is ${typeof value}, not ${typeof sample}`];
}

describe.runIf(existsSync(RECORDED))('recorded answers', () => {
  const cases: [string, unknown][] = [
    ['services', [SERVICE]], ['meters', METERS], ['hitmap', HITMAP], ['transactions', LIST], ['transaction', PROFILE],
    ['transaction_error', { ...PROFILE, error: ERROR }], ['trace', TRACE], ['active', ACTIVE], ['active_unavailable', ACTIVE],
    ['statistics_transaction', STATISTICS], ['statistics_sql', STATISTICS], ['statistics_http', STATISTICS], ['statistics_error', STATISTICS],
    ['lost', LOST], ['self', SELF], ['frame', LIVE], ['error', { error: { code: '', message: '' } }], ['unauthorized', { error: { code: '', message: '' } }],
  ];
  for (const [name, sample] of cases) {
    it(`${name} has every field that the page reads`, () => {
      expect(differences(sample, recorded(name))).toEqual([]);
    });
  }
  it('the hitmap has our levels', () => {
    expect((recorded('hitmap') as Hitmap).levels).toEqual(LEVELS);
  });
  it('a profile comes apart without rest', () => {
    const profile = recorded('transaction') as Profile;
    expect(stepRows(profile.steps)).toHaveLength(profile.steps.length);
    expect(sqlSummary(profile.steps)[0]).toMatchObject({ key: 'SELECT * FROM orders WHERE id = #', count: 1 });
    expect(httpSummary(profile.steps)).toHaveLength(1);
    expect(breakdownParts(profile.breakdown, profile.transaction.elapsed_us).length).toBeGreaterThan(3);
  });
  it('a trace is one tree over two services', () => {
    const trace = recorded('trace') as Trace;
    const rows = traceRows(trace.spans, trace.transactions);
    expect(rows.filter((row) => row.depth === 0)).toHaveLength(1);
    expect(new Set(rows.map((row) => row.span.service)).size).toBe(2);
  });
});
