// Statistics of a range against those of the range before it. Pure.

import type { Statistics, StatisticsRow } from '../api/types';

export interface Change {
  /** What it was; null if it was not there. */
  before: StatisticsRow | null;
  /** Certainly not there before: a list that was cut off leaves that open, and so does a time in which nothing reported. */
  isNew: boolean;
  /** How much more of it there is: time for what takes time, occurrences of errors. */
  grown: number;
}

export function keyOf(row: StatisticsRow): string {
  return [row.service, row.system, row.key].join('\n');
}

export function changesOf(now: Statistics, before: Statistics, limit: number): Map<string, Change> {
  const size = (row: StatisticsRow | null) => (row === null ? 0 : now.kind === 'error' ? row.count : row.total_us);
  const earlier = new Map(before.rows.map((row) => [keyOf(row), row]));
  const whole = before.rows.length > 0 && before.rows.length < limit;
  return new Map(
    now.rows.map((row) => {
      const was = earlier.get(keyOf(row)) ?? null;
      return [keyOf(row), { before: was, isNew: was === null && whole, grown: size(row) - size(was) }];
    }),
  );
}

/** What grew most comes first. */
export function byGrowth(rows: readonly StatisticsRow[], changes: ReadonlyMap<string, Change>): StatisticsRow[] {
  const grown = (row: StatisticsRow) => changes.get(keyOf(row))?.grown ?? 0;
  return [...rows].sort((a, b) => grown(b) - grown(a));
}
