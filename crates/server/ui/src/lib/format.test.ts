import { describe, expect, it } from 'vitest';
import { bytes, clock, compact, duration, percent, rate, shortSpan, span, zone } from './format';

describe('duration', () => {
  it('chooses the unit that a reader expects', () => {
    expect(duration(0, 'en')).toBe('0 ms');
    expect(duration(850, 'en')).toBe('850 µs');
    expect(duration(12_345, 'en')).toBe('12.3 ms');
    expect(duration(123_456, 'en')).toBe('123 ms');
    expect(duration(1_240_000, 'en')).toBe('1.24 s');
    expect(duration(125_000_000, 'en')).toBe('2 m 05 s');
    expect(duration(7_500_000_000, 'en')).toBe('2 h 05 m');
    expect(duration(93_600_000_000, 'en')).toBe('1 d 02 h');
  });
  it('never reads as a thousand of the smaller unit', () => {
    expect(duration(999_499, 'en')).toBe('999 ms');
    expect(duration(999_600, 'en')).toBe('1.00 s');
    expect(duration(9_999, 'en')).toBe('10.0 ms');
    expect(duration(59_990_000, 'en')).toBe('1 m 00 s');
  });
  it('shows a dash for nothing', () => {
    expect(duration(null, 'en')).toBe('–');
    expect(duration(Number.NaN, 'en')).toBe('–');
  });
});

describe('shares and rates', () => {
  it('never rounds an error down to nothing', () => {
    expect(percent(0, 'en')).toBe('0%');
    expect(percent(0.000_01, 'en')).toBe('<0.01%');
    expect(percent(0.0123, 'en')).toBe('1.2%');
    expect(percent(1, 'en')).toBe('100%');
  });
  it('gives small rates more digits', () => {
    expect(rate(0.2, 'en')).toBe('0.20');
    expect(rate(12.34, 'en')).toBe('12.3');
    expect(rate(1234, 'en')).toBe('1,234');
  });
  it('shortens only large counts', () => {
    expect(compact(12_345, 'en')).toBe('12,345');
    expect(compact(123_456, 'en')).toBe('123.5K');
    expect(compact(123_456, 'ko')).toBe('12.3만');
  });
  it('counts bytes in powers of two', () => {
    expect(bytes(512, 'en')).toBe('512 B');
    expect(bytes(150 * 1024 * 1024, 'en')).toBe('150 MiB');
    expect(bytes(null, 'en')).toBe('–');
  });
});

describe('times', () => {
  const style = { locale: 'en', utc: true };
  it('are written in the asked time zone', () => {
    expect(clock(1_700_000_000_000_000, style)).toBe('22:13:20');
  });
  it('name the day once when both ends share it', () => {
    expect(span(1_700_000_000_000_000, 1_700_000_600_000_000, style)).toBe('Nov 14, 22:13:20 – 22:23:20');
    expect(span(1_700_000_000_000_000, 1_700_010_000_000_000, style)).toBe('Nov 14, 22:13:20 – Nov 15, 01:00:00');
  });
  it('leave the day out where space is short and it is today', () => {
    const [from, to, later] = [1_700_000_000_000_000, 1_700_000_600_000_000, 1_700_086_400_000_000];
    expect(shortSpan(from, to, to, style)).toBe('22:13 – 22:23');
    expect(shortSpan(from, from + 60_000_000, to, style)).toBe('22:13:20 – 22:14:20');
    expect(shortSpan(from, to, later, style)).toBe('Nov 14, 22:13:20 – 22:23:20');
  });
  it('name their zone', () => {
    expect(zone(1_700_000_000_000_000, { locale: 'en', utc: true })).toBe('UTC');
    expect(zone(1_700_000_000_000_000, { locale: 'ko', utc: false })).toMatch(/^(GMT|UTC)/);
  });
});
