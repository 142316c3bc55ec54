import { describe, expect, it } from 'vitest';
import { COLUMNS, DAY, HOUR, MINUTE, SECOND, gridOf, liveGrid, parsePlace, parseTime, patched, picked, placeHash, timePatch } from './url';

describe('places', () => {
  it('survive the way through the address bar', () => {
    for (const hash of ['#/', '#/transactions?service=a&service=b%2Fc&q=%EC%A3%BC%EB%AC%B8', '#/transaction/00ff?tab=sql']) {
      expect(placeHash(parsePlace(hash))).toBe(hash);
    }
  });
  it('fall back to home, whatever somebody types', () => {
    expect(parsePlace('').view).toBe('home');
    expect(parsePlace('#/nowhere').view).toBe('home');
    expect(parsePlace('#/transaction/%E0%A4%A').id).toBe('%E0%A4%A');
  });
  it('change by key, and drop what is empty', () => {
    const params = new URLSearchParams('a=1&b=2&service=x');
    expect(patched(params, { a: null, b: 3, service: ['y', 'z'], c: '' }).toString()).toBe('b=3&service=y&service=z');
    expect(picked(params, ['service', 'b']).toString()).toBe('b=2&service=x');
  });
});

describe('time', () => {
  it('is live for ten minutes unless the URL says otherwise', () => {
    expect(parseTime(new URLSearchParams())).toEqual({ live: true, preset: '10m', width: 10 * MINUTE });
    expect(parseTime(new URLSearchParams('r=1h'))).toEqual({ live: true, preset: '1h', width: HOUR });
    expect(parseTime(new URLSearchParams('r=zzz')).live).toBe(true);
  });
  it('takes a fixed range, and only a possible one', () => {
    expect(parseTime(new URLSearchParams('from=10&to=20'))).toEqual({ live: false, from: 10, to: 20 });
    expect(parseTime(new URLSearchParams('from=20&to=10')).live).toBe(true);
    expect(parseTime(new URLSearchParams('from=1e3&to=-5')).live).toBe(true);
  });
  it('comes back from its own patch', () => {
    for (const query of ['', 'r=24h', 'from=5&to=9']) {
      const range = parseTime(new URLSearchParams(query));
      expect(parseTime(patched(new URLSearchParams('r=1h&from=1&to=2'), timePatch(range)))).toEqual(range);
    }
  });
});

describe('grids', () => {
  it('have columns of whole five seconds that cover the range', () => {
    const grid = gridOf(3 * SECOND, 10 * MINUTE + 3 * SECOND);
    expect(grid).toEqual({ from: 0, to: 605 * SECOND, column: 5 * SECOND, columns: 121 });
    expect(gridOf(0, DAY).column).toBe(720 * SECOND);
    expect(gridOf(7, 8).columns).toBe(1);
  });
  it('contain the running column when live', () => {
    const now = 1_700_000_003 * SECOND;
    const grid = liveGrid(10 * MINUTE, now);
    expect(grid.columns).toBe(COLUMNS);
    expect(grid.to).toBeGreaterThan(now);
    expect(grid.to - grid.column).toBeLessThanOrEqual(now);
  });
});
