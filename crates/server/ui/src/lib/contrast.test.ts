import { describe, expect, it } from 'vitest';
import type { Transaction, TransactionList } from '../api/types';
import { contrast } from './contrast';

let next = 0;
function list(count: number, make: (i: number) => Partial<Transaction>): TransactionList {
  const rows = Array.from({ length: count }, (_, i) => ({
    id: String((next += 1)), method: 'GET', name: '/', service: 'shop', instance: `web-${i % 4}`, host: `h-${i % 4}`, pid: 7, status: 200, outcome: 'ok', error_class: '', client: `c-${i}`, user: '',
    ...make(i),
  })) as Transaction[];
  return { rows, total: count, total_error: 0, total_profile: 0, groups: [] };
}

describe('what stands out', () => {
  it('is named, the largest difference first', () => {
    const slow = list(20, (i) => ({ instance: 'web-2', host: 'h-2', ...(i < 10 ? { name: '/pay', method: 'POST' } : {}) }));
    const found = contrast(slow, list(200, () => ({})));
    expect(found[0]).toMatchObject({ attribute: 'instance', value: 'web-2', chosen: 1, others: 0.25, filter: { instance: ['web-2'], service: ['shop'] } });
    expect(found[1]).toMatchObject({ attribute: 'name', value: 'POST /pay', chosen: 0.5, others: 0, filter: { name: '/pay', method: 'POST' } });
    // The host would say the same once more.
    expect(found.map((one) => one.attribute)).not.toContain('host');
  });
  it('is nothing where all are alike, or too few', () => {
    expect(contrast(list(40, () => ({})), list(200, () => ({})))).toEqual([]);
    expect(contrast(list(3, () => ({ name: '/x' })), list(200, () => ({})))).toEqual([]);
  });
  it('does not compare the chosen ones with themselves', () => {
    const chosen = list(50, () => ({ outcome: 'error', error_class: 'KeyError', status: 500 }));
    const others = list(50, () => ({}));
    const found = contrast(chosen, { ...others, rows: [...chosen.rows, ...others.rows] });
    expect(found[0]).toMatchObject({ attribute: 'outcome', value: 'error', chosen: 1, others: 0 });
  });
});
