import { describe, expect, it } from 'vitest';
import type { Statistics, StatisticsKind, StatisticsRow } from '../api/types';
import { byGrowth, changesOf, keyOf } from './changes';

const row = (key: string, count: number, total_us: number) => ({ key, service: 's', system: '', count, total_us }) as StatisticsRow;
const of = (kind: StatisticsKind, rows: StatisticsRow[]): Statistics => ({ kind, total_us: 0, rows });

describe('a range against the one before', () => {
  it('says what grew, most first, and what is new', () => {
    const now = of('sql', [row('a', 10, 1000), row('b', 10, 900), row('c', 1, 300)]);
    const changes = changesOf(now, of('sql', [row('a', 9, 990), row('b', 2, 100), row('gone', 5, 5000)]), 200);
    expect(byGrowth(now.rows, changes).map((one) => one.key)).toEqual(['b', 'c', 'a']);
    expect(changes.get(keyOf(now.rows[1]!))).toMatchObject({ grown: 800, isNew: false, before: { count: 2 } });
    expect(changes.get(keyOf(now.rows[2]!))).toMatchObject({ grown: 300, isNew: true, before: null });
  });
  it('counts errors instead of their time', () => {
    const now = of('error', [row('KeyError', 7, 10), row('OSError', 9, 999_999)]);
    const changes = changesOf(now, of('error', [row('OSError', 8, 1)]), 200);
    expect(byGrowth(now.rows, changes)[0]!.key).toBe('KeyError');
  });
  it('calls nothing new when nothing reported before', () => {
    const now = of('sql', [row('a', 1, 1)]);
    expect(changesOf(now, of('sql', []), 200).get(keyOf(now.rows[0]!))!.isNew).toBe(false);
  });
  it('does not call new what a cut list may have left out', () => {
    const now = of('sql', [row('a', 1, 1)]);
    expect(changesOf(now, of('sql', [row('x', 1, 1), row('y', 1, 1)]), 2).get(keyOf(now.rows[0]!))!.isNew).toBe(false);
  });
});
