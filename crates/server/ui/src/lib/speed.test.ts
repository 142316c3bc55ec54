import { describe, expect, it } from 'vitest';
import type { Active } from '../api/types';
import { SPEEDS, speedLimits } from './speed';

const active = (slow: number | null, verySlow: number | null) => ({ slow_from_us: slow, very_slow_from_us: verySlow }) as Active;
const texts = (one: Active | null) => SPEEDS.map((speed) => speedLimits(speed, one, 'en'));

describe('speed classes', () => {
  it('say from when on one is slow', () => {
    expect(texts(null)).toEqual(['< 3 s', '3 – 8 s', '≥ 8 s']);
    expect(texts(active(500_000, 2_000_000))).toEqual(['< 500 ms', '500 ms – 2 s', '≥ 2 s']);
  });
  it('say nothing where the applications differ', () => {
    expect(new Set(texts(active(null, null))).size).toBe(1);
  });
});
