import { describe, expect, it } from 'vitest';
import type { Step, TraceSpan } from '../api/types';
import { breakdownParts, criticalPath, httpSummary, isNPlusOne, severityName, splitName, sqlSummary, stepRows, traceRows } from './profile';

function step(index: number, part: Partial<Step>): Step {
  return {
    index, parent: null, kind: 'sql', start_us: index * 100, elapsed_us: 50, text: 'SELECT 1', target: 'db', system: 'postgresql',
    method: '', status: null, rows: null, repeat: 1, error: null, span_id: null, callee: null, ...part,
  };
}

function span(id: string, parent_id: string | null, start_us: number): TraceSpan {
  return { id, parent_id, transaction: id, service: 's', kind: 'web', name: id, start_us, elapsed_us: 5, error: false };
}

describe('N+1', () => {
  const item = (index: number) => step(index, { text: 'SELECT * FROM items WHERE id = #', rows: 1 });
  it('is the same statement ten times in a row', () => {
    const steps = [step(0, { text: 'SELECT * FROM orders' }), ...Array.from({ length: 10 }, (_, i) => item(i + 1))];
    const rows = sqlSummary(steps);
    expect(rows[0]).toMatchObject({ key: 'SELECT * FROM items WHERE id = #', count: 10, run: 10, rows: 10 });
    expect(rows.map(isNPlusOne)).toEqual([true, false]);
  });
  it('is not nine, nor ten with another statement in between', () => {
    const nine = Array.from({ length: 9 }, (_, i) => item(i));
    expect(sqlSummary(nine).some(isNPlusOne)).toBe(false);
    const broken = [...nine.slice(0, 5), step(5, { text: 'COMMIT' }), ...Array.from({ length: 5 }, (_, i) => item(i + 6))];
    expect(sqlSummary(broken)[0]).toMatchObject({ count: 10, run: 5 });
  });
  it('counts steps that the tracer gathered into one', () => {
    expect(isNPlusOne(sqlSummary([step(0, { repeat: 12 })])[0]!)).toBe(true);
  });
});

describe('summaries', () => {
  it('gather HTTP calls by method and path, and keep the called transactions', () => {
    const call = (index: number, query: string, callee: string | null) =>
      step(index, { kind: 'http', method: 'GET', text: `http://stock/item${query}`, error: callee ? null : 'refused', callee });
    const rows = httpSummary([call(0, '?a=1', 'ff'), call(1, '?a=2', null)]);
    expect(rows).toHaveLength(1);
    expect(rows[0]).toMatchObject({ key: 'GET http://stock/item', count: 2, error: 1, callees: ['ff'] });
  });
});

describe('steps', () => {
  it('are a tree with depth and gaps', () => {
    const rows = stepRows([
      step(0, { kind: 'method', start_us: 10, elapsed_us: 500 }),
      step(1, { parent: 0, start_us: 60, elapsed_us: 100 }),
      step(2, { start_us: 700, elapsed_us: 10 }),
    ]);
    expect(rows.map((row) => [row.step.index, row.depth, row.gap_us])).toEqual([[0, 0, 10], [1, 1, 50], [2, 0, 540]]);
  });
  it('survive parents that do not exist or point forward', () => {
    const rows = stepRows([step(0, { parent: 1 }), step(1, { parent: 0 }), step(2, { parent: 99 }), step(3, { parent: 3 })]);
    expect(rows.map((row) => row.step.index).sort()).toEqual([0, 1, 2, 3]);
  });
  it('have a path that the response waited for', () => {
    const path = criticalPath([
      step(0, { start_us: 0, elapsed_us: 100 }),
      step(1, { start_us: 10, elapsed_us: 20 }),
      step(2, { start_us: 120, elapsed_us: 300 }),
    ]);
    expect([...path].sort()).toEqual([0, 2]);
  });
});

describe('a breakdown', () => {
  const none = { sql_us: 0, fetch_us: 0, dbc_us: 0, http_us: 0, method_us: 0, own_us: 0, gap_us: 0 };
  it('never exceeds the whole bar, even if steps ran in parallel', () => {
    const parts = breakdownParts({ ...none, sql_us: 800, http_us: 800 }, 1000);
    expect(parts.reduce((sum, part) => sum + part.share, 0)).toBeCloseTo(1);
  });
  it('leaves out what is zero', () => {
    expect(breakdownParts({ ...none, gap_us: 10 }, 10).map((part) => part.key)).toEqual(['gap_us']);
    expect(breakdownParts(none, 0)).toEqual([]);
  });
});

describe('a trace', () => {
  it('is one tree over services, also with orphans and loops', () => {
    const rows = traceRows([span('b', 'a', 2), span('a', null, 1), span('x', 'missing', 3), span('l1', 'l2', 4), span('l2', 'l1', 5)], []);
    expect(rows.map((row) => [row.span.id, row.depth])).toEqual([['a', 0], ['b', 1], ['x', 0], ['l1', 0], ['l2', 1]]);
  });
});

describe('names', () => {
  it('of severities follow OpenTelemetry', () => {
    expect([1, 5, 9, 13, 17, 21, 24, 0, 99].map(severityName)).toEqual(
      ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'fatal', 'none', 'none'],
    );
  });
  it('of transactions come apart into method and name', () => {
    expect(splitName('GET /orders/<int:id>')).toEqual({ method: 'GET', name: '/orders/<int:id>' });
    expect(splitName('shop.tasks.send_mail')).toEqual({ method: '', name: 'shop.tasks.send_mail' });
  });
});
