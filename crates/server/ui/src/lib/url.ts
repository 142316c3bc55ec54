// What a page shows is in the URL's fragment: `#/view/id?key=value`. Pure; the browser is in location.svelte.ts.

export const VIEWS = ['home', 'transactions', 'transaction', 'active', 'statistics', 'instances'] as const;
export type View = (typeof VIEWS)[number];

/** A page: the view, the thing it is about, and its parameters in order. */
export interface Place {
  view: View;
  id: string;
  params: URLSearchParams;
}

export function parsePlace(hash: string): Place {
  const text = hash.replace(/^#\/?/, '');
  const mark = text.indexOf('?');
  const path = (mark < 0 ? text : text.slice(0, mark)).split('/');
  const params = new URLSearchParams(mark < 0 ? '' : text.slice(mark + 1));
  const name = path[0] === '' ? 'home' : path[0];
  const view = VIEWS.find((v) => v === name) ?? 'home';
  return { view, id: decode(path[1] ?? ''), params };
}

export function placeHash(place: Place): string {
  const path = place.view === 'home' ? '' : place.view + (place.id ? `/${encodeURIComponent(place.id)}` : '');
  const query = place.params.toString();
  return `#/${path}${query ? `?${query}` : ''}`;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The given keys, changed; `null` and the empty list remove. */
export type Patch = Record<string, string | number | null | undefined | readonly string[]>;

export function patched(params: URLSearchParams, patch: Patch): URLSearchParams {
  const next = new URLSearchParams(params);
  for (const [key, value] of Object.entries(patch)) {
    next.delete(key);
    if (value === null || value === undefined || value === '') continue;
    if (typeof value === 'object') for (const one of value) next.append(key, one);
    else next.set(key, String(value));
  }
  return next;
}

/** Only these keys, in their order. */
export function picked(params: URLSearchParams, keys: readonly string[]): URLSearchParams {
  const next = new URLSearchParams();
  for (const [key, value] of params) if (keys.includes(key)) next.append(key, value);
  return next;
}

// --- time ---------------------------------------------------------------------------------------------------------

export const SECOND = 1_000_000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

export const PRESETS: readonly { key: string; width: number }[] = [
  { key: '10m', width: 10 * MINUTE },
  { key: '1h', width: HOUR },
  { key: '6h', width: 6 * HOUR },
  { key: '24h', width: DAY },
  { key: '7d', width: 7 * DAY },
];
export const DEFAULT_PRESET = '10m';

/** Columns of the hitmap and steps of the series; a column is a multiple of five seconds. */
export const COLUMNS = 120;
export const COLUMN_UNIT = 5 * SECOND;

/** Either the last `width` up to now, moving, or fixed. */
export type TimeRange = { live: true; preset: string; width: number } | { live: false; from: number; to: number };

export const TIME_KEYS = ['r', 'from', 'to'] as const;
export const SCOPE_KEYS = ['service', 'instance'] as const;

export function parseTime(params: URLSearchParams): TimeRange {
  const from = integerParam(params, 'from');
  const to = integerParam(params, 'to');
  if (from !== null && to !== null && from < to) return { live: false, from, to };
  const key = params.get('r') ?? DEFAULT_PRESET;
  const preset = PRESETS.find((p) => p.key === key) ?? PRESETS[0]!;
  return { live: true, preset: preset.key, width: preset.width };
}

export function timePatch(range: TimeRange): Patch {
  if (!range.live) return { r: null, from: range.from, to: range.to };
  return { r: range.preset === DEFAULT_PRESET ? null : range.preset, from: null, to: null };
}

export function integerParam(params: URLSearchParams, key: string): number | null {
  const text = params.get(key);
  if (text === null || !/^\d{1,16}$/.test(text)) return null;
  return Number(text);
}

/** The grid that a range is drawn on: whole columns that cover it. */
export interface Grid {
  from: number;
  to: number;
  column: number;
  columns: number;
}

export function gridOf(from: number, to: number): Grid {
  const units = Math.max(1, Math.ceil((to - from) / COLUMN_UNIT / COLUMNS));
  const column = units * COLUMN_UNIT;
  const begin = Math.floor(from / column) * column;
  const end = Math.max(begin + column, Math.ceil(to / column) * column);
  return { from: begin, to: end, column, columns: Math.round((end - begin) / column) };
}

/** The grid of the last `width` before `now`; its last column is the running one. */
export function liveGrid(width: number, now: number): Grid {
  const column = Math.max(COLUMN_UNIT, Math.ceil(width / COLUMNS / COLUMN_UNIT) * COLUMN_UNIT);
  const columns = Math.round(width / column);
  const to = (Math.floor(now / column) + 1) * column;
  return { from: to - columns * column, to, column, columns };
}

/** What a transaction list is made of, kept by the profiles that are opened from it. */
export const LIST_KEYS = ['q', 'name', 'method', 'status', 'error', 'min_us', 'max_us', 'client', 'trace_id', 'aborted', 'sort', 'order', 'vs', 'contrast', 'by'] as const;
