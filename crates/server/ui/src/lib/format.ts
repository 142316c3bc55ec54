// Numbers, durations and times as text. Pure: language and time zone are arguments.

export interface Style {
  locale: string;
  utc: boolean;
}

const numbers = new Map<string, Intl.NumberFormat>();
const dates = new Map<string, Intl.DateTimeFormat>();

function numberFormat(locale: string, options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = locale + JSON.stringify(options);
  let format = numbers.get(key);
  if (!format) numbers.set(key, (format = new Intl.NumberFormat(locale, options)));
  return format;
}

function dateFormat(style: Style, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const zoned = style.utc ? { ...options, timeZone: 'UTC' } : options;
  const key = style.locale + JSON.stringify(zoned);
  let format = dates.get(key);
  if (!format) dates.set(key, (format = new Intl.DateTimeFormat(style.locale, zoned)));
  return format;
}

/** Shown where there is no value. */
export const NONE = '–';

export function integer(value: number, locale: string): string {
  return numberFormat(locale, { maximumFractionDigits: 0 }).format(value);
}

/** 12,345 in full; from 100,000 on 123K. */
export function compact(value: number, locale: string): string {
  if (Math.abs(value) < 100_000) return integer(value, locale);
  return numberFormat(locale, { notation: 'compact', maximumFractionDigits: 1 }).format(value);
}

/** A rate: the smaller, the more digits. */
export function rate(value: number, locale: string): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : value === 0 ? 0 : 2;
  return numberFormat(locale, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

/** For axes: no more digits than the number needs. */
export function short(value: number, locale: string): string {
  return numberFormat(locale, { maximumFractionDigits: 2, notation: value >= 10_000 ? 'compact' : 'standard' }).format(value);
}

export function shortPercent(share: number, locale: string): string {
  return numberFormat(locale, { style: 'percent', maximumFractionDigits: 1 }).format(share);
}

export function decimal(value: number, digits: number, locale: string): string {
  return numberFormat(locale, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

/** 0.0123 is 1.23 %. Never rounds something down to nothing. */
export function percent(share: number, locale: string): string {
  if (share > 0 && share < 0.0001) return '<' + percent(0.0001, locale);
  const digits = share === 0 || share >= 0.9995 ? 0 : share < 0.01 ? 2 : 1;
  return numberFormat(locale, {
    style: 'percent',
    maximumFractionDigits: digits,
    minimumFractionDigits: digits,
  }).format(share);
}

/** µs as the unit that a reader expects: 850 µs, 12.3 ms, 1.24 s, 2 m 05 s. */
export function duration(us: number | null | undefined, locale: string): string {
  if (us === null || us === undefined || !Number.isFinite(us)) return NONE;
  const size = Math.abs(us);
  if (size < 1) return `${integer(0, locale)} ms`;
  if (size < 1000) return `${integer(us, locale)} µs`;
  // The limits lie below the next unit by half of the last digit, so that nothing reads "1,000 ms".
  if (size < 9_995) return `${decimal(us / 1000, 2, locale)} ms`;
  if (size < 99_950) return `${decimal(us / 1000, 1, locale)} ms`;
  if (size < 999_500) return `${decimal(us / 1000, 0, locale)} ms`;
  if (size < 9_995_000) return `${decimal(us / 1e6, 2, locale)} s`;
  if (size < 59_950_000) return `${decimal(us / 1e6, 1, locale)} s`;
  const seconds = Math.round(us / 1e6);
  const two = (n: number) => String(n).padStart(2, '0');
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} m`;
  return `${Math.floor(seconds / 86_400)} d ${two(Math.floor((seconds % 86_400) / 3600))} h`;
}

/** For axes: the shortest text, no trailing zeros. */
export function shortDuration(us: number, locale: string): string {
  const short = (value: number) => numberFormat(locale, { maximumFractionDigits: 2 }).format(value);
  if (us === 0) return '0';
  if (us < 1000) return `${short(us)} µs`;
  if (us < 1e6) return `${short(us / 1000)} ms`;
  return `${short(us / 1e6)} s`;
}

const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(value: number | null | undefined, locale: string): string {
  if (value === null || value === undefined) return NONE;
  let unit = 0;
  let size = value;
  while (Math.abs(size) >= 1000 && unit < BYTES.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || size >= 100 ? 0 : 1;
  return `${decimal(size, digits, locale)} ${BYTES[unit]}`;
}

/** 14:05:09 */
export function clock(us: number, style: Style): string {
  return dateFormat(style, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' }).format(us / 1000);
}

/** 14:05 */
export function minute(us: number, style: Style): string {
  return dateFormat(style, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(us / 1000);
}

/** 14:05:09.123 */
export function clockMillis(us: number, style: Style): string {
  return dateFormat(style, {
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    fractionalSecondDigits: 3,
    hourCycle: 'h23',
  }).format(us / 1000);
}

/** Nov 21, 14:05:09 */
export function dateTime(us: number, style: Style): string {
  return dateFormat(style, {
    month: 'short',
    day: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hourCycle: 'h23',
  }).format(us / 1000);
}

/** Nov 21 */
export function day(us: number, style: Style): string {
  return dateFormat(style, { month: 'short', day: 'numeric' }).format(us / 1000);
}

/** The zone that times are shown in: UTC, GMT+9. */
export function zone(us: number, style: Style): string {
  const parts = dateFormat(style, { timeZoneName: 'shortOffset' }).formatToParts(us / 1000);
  return style.utc ? 'UTC' : (parts.find((part) => part.type === 'timeZoneName')?.value ?? '');
}

/** Both ends; the day is named once if it is the same one. */
export function span(from: number, to: number, style: Style): string {
  const sameDay = day(from, style) === day(to, style);
  return `${dateTime(from, style)} – ${sameDay ? clock(to, style) : dateTime(to, style)}`;
}

/** Both ends for a small place: without the day if it is today, without seconds if they say little. */
export function shortSpan(from: number, to: number, now: number, style: Style): string {
  const today = day(now, style);
  if (day(from, style) !== today || day(to, style) !== today) return span(from, to, style);
  const text = to - from >= 300e6 ? minute : clock;
  return `${text(from, style)} – ${text(to, style)}`;
}
