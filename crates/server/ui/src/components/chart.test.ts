import { describe, expect, it } from 'vitest';
import { niceMax, settledMax, stack } from './chart';

describe('an axis', () => {
  it('ends a little above the data, at a round number', () => {
    expect(niceMax(0)).toBe(1);
    expect(niceMax(0.97)).toBe(1);
    expect(niceMax(1)).toBe(1.5);
    expect(niceMax(42)).toBe(50);
    expect(niceMax(980_000)).toBe(1_000_000);
  });
  it('does not dance while it is read', () => {
    expect(settledMax(100, 150, true)).toBe(150);
    expect(settledMax(100, 50, false)).toBe(100);
    expect(settledMax(100, 20, true)).toBe(100);
    expect(settledMax(100, 20, false)).toBe(20);
  });
});

describe('stacking', () => {
  it('puts the first series on top of the others', () => {
    expect(stack([[1, null], [2, 3]])).toEqual([[3, 3], [2, 3]]);
    expect(stack([])).toEqual([]);
  });
});
