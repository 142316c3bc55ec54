// The hitmap's arithmetic: columns of time, 120 levels of response time, what a rectangle means.
// Pure; the drawing is in components/Hitmap.svelte.

import type { HitCell } from '../api/types';
import * as fmt from './format';
import { COLUMN_UNIT, DAY, HOUR, MINUTE, SECOND, type Grid } from './url';

const MS = 1000;

/** Upper bounds of the levels in µs, exclusive; the last level takes the rest and has the bound 0. */
export const LEVELS: readonly number[] = levels();

function levels(): number[] {
  const bounds: number[] = [];
  let upper = 0;
  for (const [count, height] of [[40, 125], [20, 250], [20, 500], [20, 1000], [19, 2000]] as const) {
    for (let i = 0; i < count; i += 1) bounds.push((upper += height * MS));
  }
  bounds.push(0);
  return bounds;
}

export const LEVEL_COUNT = LEVELS.length;

/** How far the vertical axis goes, in seconds. */
export const ZOOMS = [5, 10, 20, 40, 80] as const;
export type Zoom = (typeof ZOOMS)[number];

/** Rows that are drawn at every zoom: 40 of equal height, and one above for what is slower. */
export const ROWS = 40;

export function rowHeight(zoom: Zoom): number {
  return (zoom * 1_000_000) / ROWS;
}

/** The row in which a level is drawn; `ROWS` is the one above the scale. */
export function rowOfLevel(level: number, zoom: Zoom): number {
  const upper = LEVELS[level];
  if (!upper) return ROWS;
  // Every coarser row consists of whole levels, because heights double with the zoom.
  return Math.min(ROWS, Math.ceil(upper / rowHeight(zoom)) - 1);
}

/** Response times of the rows `low` to `high`, both included: `max` is exclusive and null without end. */
export function rowsToTimes(low: number, high: number, zoom: Zoom): { min: number; max: number | null } {
  const top = LEVELS[LEVELS.length - 2]!;
  const height = rowHeight(zoom);
  // The last level takes everything above 78 s, so a row above that has no upper bound either.
  const max = (high + 1) * height;
  return { min: Math.min(low * height, top), max: high >= ROWS || max > top ? null : max };
}

/** Counts by column and level, as a window that can move with time. */
export class HitGrid {
  grid: Grid;
  private hits: Uint32Array;
  private errors: Uint32Array;

  constructor(grid: Grid) {
    this.grid = grid;
    this.hits = new Uint32Array(grid.columns * LEVEL_COUNT);
    this.errors = new Uint32Array(grid.columns * LEVEL_COUNT);
  }

  /** Puts the cells of an answer in place; its columns replace ours, also where they are empty. */
  replace(from: number, to: number, column: number, cells: readonly HitCell[]): void {
    if (column !== this.grid.column) return;
    for (let t = from; t < to; t += column) this.clearColumn(this.columnOf(t));
    for (const [index, level, hit, error] of cells) this.put(this.columnOf(from + index * column), level, hit, error);
  }

  /** Takes whole columns, named by their start, as the live stream sends them. */
  replaceColumns(cells: readonly HitCell[]): void {
    const starts = new Set(cells.map(([start]) => start));
    for (const start of starts) this.clearColumn(this.columnOf(start));
    for (const [start, level, hit, error] of cells) this.put(this.columnOf(start), level, hit, error);
  }

  /** Moves the window; what leaves it is forgotten. */
  moveTo(grid: Grid): void {
    if (grid.from === this.grid.from && grid.columns === this.grid.columns && grid.column === this.grid.column) return;
    const old = { grid: this.grid, hits: this.hits, errors: this.errors };
    this.grid = grid;
    this.hits = new Uint32Array(grid.columns * LEVEL_COUNT);
    this.errors = new Uint32Array(grid.columns * LEVEL_COUNT);
    if (old.grid.column !== grid.column) return;
    const shift = Math.round((grid.from - old.grid.from) / grid.column);
    const first = Math.max(0, shift);
    const last = Math.min(old.grid.columns, grid.columns + shift);
    if (first >= last) return;
    const target = (first - shift) * LEVEL_COUNT;
    this.hits.set(old.hits.subarray(first * LEVEL_COUNT, last * LEVEL_COUNT), target);
    this.errors.set(old.errors.subarray(first * LEVEL_COUNT, last * LEVEL_COUNT), target);
  }

  /** Calls back for each drawn cell that is not empty, levels gathered into rows. */
  eachRow(zoom: Zoom, visit: (column: number, row: number, hit: number, error: number) => void): void {
    const hit = new Uint32Array(ROWS + 1);
    const error = new Uint32Array(ROWS + 1);
    const rows = Array.from({ length: LEVEL_COUNT }, (_, level) => rowOfLevel(level, zoom));
    for (let column = 0; column < this.grid.columns; column += 1) {
      hit.fill(0);
      error.fill(0);
      const base = column * LEVEL_COUNT;
      for (let level = 0; level < LEVEL_COUNT; level += 1) {
        const row = rows[level]!;
        hit[row]! += this.hits[base + level]!;
        error[row]! += this.errors[base + level]!;
      }
      for (let row = 0; row <= ROWS; row += 1) {
        if (hit[row]! + error[row]! > 0) visit(column, row, hit[row]!, error[row]!);
      }
    }
  }

  /** Transactions in a rectangle of drawn cells, all edges included. `hit` counts those without error. */
  count(rect: CellRect, zoom: Zoom): { hit: number; error: number } {
    const { min, max } = rowsToTimes(rect.low, rect.high, zoom);
    let hit = 0;
    let error = 0;
    for (let level = 0; level < LEVEL_COUNT; level += 1) {
      // By response time, not by row: at the widest zoom the last two rows share one level.
      const upper = LEVELS[level]! || Infinity;
      if ((level === 0 ? 0 : LEVELS[level - 1]!) < min || (max !== null && upper > max)) continue;
      for (let column = Math.max(0, rect.left); column <= Math.min(this.grid.columns - 1, rect.right); column += 1) {
        hit += this.hits[column * LEVEL_COUNT + level]!;
        error += this.errors[column * LEVEL_COUNT + level]!;
      }
    }
    return { hit, error };
  }

  /** All in one cell, failed or not. */
  at(column: number, level: number): number {
    const i = column * LEVEL_COUNT + level;
    return this.hits[i]! + this.errors[i]!;
  }

  total(): { hit: number; error: number } {
    return this.count({ left: 0, right: this.grid.columns - 1, low: 0, high: ROWS }, 5);
  }

  private columnOf(start: number): number {
    return Math.floor((start - this.grid.from) / this.grid.column);
  }

  private clearColumn(column: number): void {
    if (column < 0 || column >= this.grid.columns) return;
    this.hits.fill(0, column * LEVEL_COUNT, (column + 1) * LEVEL_COUNT);
    this.errors.fill(0, column * LEVEL_COUNT, (column + 1) * LEVEL_COUNT);
  }

  private put(column: number, level: number, hit: number, error: number): void {
    if (column < 0 || column >= this.grid.columns || level < 0 || level >= LEVEL_COUNT) return;
    this.hits[column * LEVEL_COUNT + level]! += hit;
    this.errors[column * LEVEL_COUNT + level]! += error;
  }
}

/** A rectangle of drawn cells; `left`…`right` columns, `low`…`high` rows, all included. */
export interface CellRect {
  left: number;
  right: number;
  low: number;
  high: number;
}

/** From two corners in any order, kept inside the drawing. */
export function rectOf(a: { column: number; row: number }, b: { column: number; row: number }, columns: number): CellRect {
  const column = (value: number) => Math.max(0, Math.min(columns - 1, value));
  const row = (value: number) => Math.max(0, Math.min(ROWS, value));
  return {
    left: column(Math.min(a.column, b.column)),
    right: column(Math.max(a.column, b.column)),
    low: row(Math.min(a.row, b.row)),
    high: row(Math.max(a.row, b.row)),
  };
}

/** What a rectangle means: the parameters of the transaction list. */
export interface Selection {
  from: number;
  to: number;
  min_us: number | null;
  max_us: number | null;
}

export function selectionOf(rect: CellRect, grid: Grid, zoom: Zoom): Selection {
  const times = rowsToTimes(rect.low, rect.high, zoom);
  return {
    from: grid.from + rect.left * grid.column,
    to: grid.from + (rect.right + 1) * grid.column,
    min_us: times.min > 0 ? times.min : null,
    max_us: times.max,
  };
}

/** The rectangle of a selection on a grid, if it is on it. */
export function rectOfSelection(selection: Selection, grid: Grid, zoom: Zoom): CellRect | null {
  const left = Math.floor((selection.from - grid.from) / grid.column);
  const right = Math.ceil((selection.to - grid.from) / grid.column) - 1;
  if (right < 0 || left >= grid.columns) return null;
  const height = rowHeight(zoom);
  const low = Math.min(ROWS, Math.floor((selection.min_us ?? 0) / height));
  const high = selection.max_us === null ? ROWS : Math.min(ROWS, Math.ceil(selection.max_us / height) - 1);
  return rectOf({ column: left, row: low }, { column: right, row: high }, grid.columns);
}

/** Fewer columns than this say nothing. */
const LEAST_COLUMNS = 12;

/** Half or twice the range, around a time that stays where it is. */
export function zoomedRange(grid: Grid, around: number, closer: boolean): { from: number; to: number } {
  const width = grid.to - grid.from;
  const next = Math.max(LEAST_COLUMNS * COLUMN_UNIT, Math.min(7 * DAY, closer ? width / 2 : width * 2));
  const from = around - (around - grid.from) * (next / width);
  const whole = (t: number) => Math.round(t / COLUMN_UNIT) * COLUMN_UNIT;
  return { from: whole(from), to: whole(from + next) };
}

/** As in the address bar: from-to-min-max, the last two may be empty. */
export function selectionText(one: Selection): string {
  return [one.from, one.to, one.min_us ?? '', one.max_us ?? ''].join('-');
}

export function parseSelection(text: string | null): Selection | null {
  const parts = (text ?? '').split('-');
  if (parts.length !== 4 || !parts.every((part) => /^\d{0,16}$/.test(part))) return null;
  const [from, to, min_us, max_us] = parts.map((part) => (part === '' ? null : Number(part)));
  return from && to && from < to ? { from, to, min_us: min_us ?? null, max_us: max_us ?? null } : null;
}

/** The parameters of the list that holds what a selection holds. */
export function selectionQuery(one: Selection): { from: number; to: number; min_us: number | null; max_us: number | null } {
  return { ...one, max_us: one.max_us === null ? null : one.max_us - 1 };
}

/** Step 0 to 3 in a colour ramp, by what is usual in a cell. */
export function shade(count: number): number {
  if (count <= 1) return 0;
  if (count <= 5) return 1;
  if (count <= 20) return 2;
  return 3;
}

/** What people count time in. */
const LABEL_STEPS = [
  5 * SECOND, 15 * SECOND, 30 * SECOND, MINUTE, 2 * MINUTE, 3 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 7 * DAY,
];

/** Labels of the columns in which a round time begins, at least `apart` columns from each other. */
export function timeLabels(grid: Grid, apart: number, style: fmt.Style): { column: number; text: string }[] {
  const step = LABEL_STEPS.find((one) => one >= apart * grid.column) ?? 7 * DAY;
  // Round in the zone that is shown.
  const shift = style.utc ? 0 : -new Date(grid.from / 1000).getTimezoneOffset() * MINUTE;
  const labels: { column: number; text: string }[] = [];
  for (let column = 0; column < grid.columns; column += 1) {
    const t = grid.from + column * grid.column;
    const round = Math.ceil((t + shift) / step) * step - shift;
    if (round >= t + grid.column) continue;
    const text = step >= DAY ? fmt.day(round, style) : step >= MINUTE ? fmt.minute(round, style) : fmt.clock(round, style);
    labels.push({ column, text });
  }
  return labels;
}
