import { describe, expect, it } from 'vitest';
import { alone, bridged, niceMax, settledMax, stack, ticks } from './chart';

describe('an axis', () => {
  it('ends a little above the data, at a round number', () => {
    expect(niceMax(0)).toBe(1);
    expect(niceMax(0.97)).toBe(1);
    expect(niceMax(1)).toBe(1.5);
    expect(niceMax(42)).toBe(50);
    expect(niceMax(980_000)).toBe(1_000_000);
  });
  it('has round lines, also in units that are not decimal', () => {
    expect(ticks(20)).toEqual([0, 10, 20]);
    expect(ticks(1.5)).toEqual([0, 0.5, 1, 1.5]);
    const mib = 1024 * 1024;
    expect(niceMax(440 * mib, mib)).toBe(500 * mib);
    expect(ticks(300 * mib, mib)).toEqual([0, 100 * mib, 200 * mib, 300 * mib]);
  });
  it('does not dance while it is read', () => {
    expect(settledMax(100, 150, true)).toBe(150);
    expect(settledMax(100, 50, false)).toBe(100);
    expect(settledMax(100, 20, true)).toBe(100);
    expect(settledMax(100, 20, false)).toBe(20);
  });
});

describe('points', () => {
  it('are shown where no line can be', () => {
    expect(alone([1, null, 2, 3, null, 0])).toEqual([0, 5]);
    expect(alone([])).toEqual([]);
    expect(alone([7])).toEqual([0]);
  });
});

describe('gauges', () => {
  it('miss a step without a gap, but not two', () => {
    expect(bridged([null, 2, null, 4, null, null, 1, null])).toEqual([null, 2, 3, 4, null, null, 1, null]);
  });
});

describe('stacking', () => {
  it('puts the first series on top of the others', () => {
    expect(stack([[1, null], [2, 3]])).toEqual([[3, 3], [2, 3]]);
    expect(stack([])).toEqual([]);
  });
});
