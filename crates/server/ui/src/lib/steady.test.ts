import { describe, expect, it } from 'vitest';
import { steady, type Steady } from './steady';

describe('rows', () => {
  const key = (row: { id: string }) => row.id;
  const row = (id: string, n = 0) => ({ id, n });
  it('come sorted when nobody reads', () => {
    const shown = steady([], [row('b'), row('a')], key, false);
    expect(steady(shown, [row('c'), row('a')], key, false).map((one) => one.row.id)).toEqual(['c', 'a']);
  });
  it('stay where they are under the pointer, with new values', () => {
    const shown = steady([], [row('a', 1), row('b', 1)], key, false);
    const next = steady(shown, [row('new', 9), row('b', 2)], key, true);
    expect(next).toEqual([
      { row: row('a', 1), gone: true },
      { row: row('b', 2), gone: false },
      { row: row('new', 9), gone: false },
    ]);
  });

  it('forgets the first that ended when somebody reads for hours', () => {
    let shown: Steady<string>[] = [{ row: 'stays', gone: false }];
    for (let i = 0; i < 3000; i += 1) shown = steady(shown, ['stays', `row ${i}`], (row) => row, true);
    expect(shown.length).toBeLessThan(510);
    expect(shown[0]).toEqual({ row: 'stays', gone: false });
    expect(shown.at(-1)).toEqual({ row: 'row 2999', gone: false });
  });
});
