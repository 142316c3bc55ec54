// Speed classes of running transactions, and response time limits for marks.

import type { Active } from '../api/types';
import { NONE, shortDuration } from './format';

export const SPEEDS = ['normal', 'slow', 'very_slow'] as const;
export type Speed = (typeof SPEEDS)[number];

const SLOW_US = 3_000_000;
const VERY_SLOW_US = 8_000_000;

/** What a duration is marked as. A running transaction says itself what it is: its application may have other limits. */
export function speedOf(elapsed_us: number): Speed {
  return elapsed_us < SLOW_US ? 'normal' : elapsed_us < VERY_SLOW_US ? 'slow' : 'very_slow';
}

/** `< 3 s`, `3 – 8 s`, `≥ 8 s`; nothing where the applications shown differ. */
export function speedLimits(speed: Speed, active: Active | null, language: string): string {
  const [slow, verySlow] = active ? [active.slow_from_us, active.very_slow_from_us] : [SLOW_US, VERY_SLOW_US];
  if (slow === null || verySlow === null) return NONE;
  const [from, to] = [shortDuration(slow, language), shortDuration(verySlow, language)];
  const unit = (text: string) => text.replace(/^\S+/, '');
  const both = unit(from) === unit(to) ? `${from.replace(/\s.*/, '')} – ${to}` : `${from} – ${to}`;
  return { normal: `< ${from}`, slow: both, very_slow: `≥ ${to}` }[speed];
}
