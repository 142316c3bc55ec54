// Speed classes of running transactions, and response time limits for marks.

export const SPEEDS = ['normal', 'slow', 'very_slow'] as const;
export type Speed = (typeof SPEEDS)[number];

const SLOW_US = 3_000_000;
const VERY_SLOW_US = 8_000_000;

export function speedOf(elapsed_us: number): Speed {
  return elapsed_us < SLOW_US ? 'normal' : elapsed_us < VERY_SLOW_US ? 'slow' : 'very_slow';
}

export function speedLimits(speed: Speed): string {
  return { normal: '< 3 s', slow: '3 – 8 s', very_slow: '≥ 8 s' }[speed];
}
