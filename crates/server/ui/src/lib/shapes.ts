// Shapes that tell a cause before a list does: a vertical line (many ended together) and a horizontal one (many gave up
// after the same time). Found by comparing each column and each level with what is usual around it. Pure.

import { LEVELS, LEVEL_COUNT, type HitGrid, type Selection } from './hitmap';

export interface Shape {
  kind: 'vertical' | 'horizontal';
  count: number;
  selection: Selection;
}

/** Faster ones make no line: that is where everything is. */
const SLOW_US = 1_000_000;
const FIRST_LEVEL = LEVELS.findIndex((upper) => upper > SLOW_US);
/** A line has at least this many transactions … */
const LEAST = 8;
/** … and this many times as many as usual. */
const TIMES = 4;
/** A vertical line spreads over this many levels, a horizontal one over this many columns. */
const LEAST_LEVELS = 6;
const LEAST_COLUMNS = 5;
/** Columns without one of a horizontal line's before it ends. */
const GAP = 4;
const MOST = 4;

/** The largest ones, in the order of time. */
export function shapesOf(grid: HitGrid): Shape[] {
  const largest = [...verticals(grid), ...horizontals(grid)].sort((a, b) => b.count - a.count).slice(0, MOST);
  return largest.sort((a, b) => a.selection.from - b.selection.from);
}

/** The shapes by their place on the screen. Who was there stays where he was; a new one takes the first free place. */
export function inPlaces(before: readonly (Shape | null)[], shapes: readonly Shape[]): (Shape | null)[] {
  const left = [...shapes];
  const places = Array.from({ length: MOST }, (_, at): Shape | null => {
    const was = before[at];
    const found = was ? left.findIndex((one) => isSame(was, one)) : -1;
    return found < 0 ? null : left.splice(found, 1)[0]!;
  });
  return places.map((one) => one ?? left.shift() ?? null);
}

/** A shape grows at its end and is cut at its beginning while the window moves. */
function isSame(was: Shape, now: Shape): boolean {
  const [a, b] = [was.selection, now.selection];
  return was.kind === now.kind && a.min_us === b.min_us && a.from < b.to && b.from < a.to;
}

function verticals(hits: HitGrid): Shape[] {
  const { columns, from, column } = hits.grid;
  const counts = Array.from({ length: columns }, (_, at) => slowIn(hits, at));
  const usual = median(counts.map((one) => one.count));
  return runs(columns, 0, (at) => counts[at]!.count >= Math.max(LEAST, usual * TIMES + 2) && counts[at]!.levels >= LEAST_LEVELS)
    // What lasts is no line but a flood.
    .filter(([left, right]) => right - left < 3)
    .map(([left, right]) => ({
      kind: 'vertical',
      count: sum(counts.slice(left, right + 1).map((one) => one.count)),
      selection: { from: from + left * column, to: from + (right + 1) * column, min_us: LEVELS[FIRST_LEVEL - 1]!, max_us: null },
    }));
}

function slowIn(hits: HitGrid, column: number): { count: number; levels: number } {
  let count = 0;
  let levels = 0;
  for (let level = FIRST_LEVEL; level < LEVEL_COUNT; level += 1) {
    const n = hits.at(column, level);
    count += n;
    levels += n > 0 ? 1 : 0;
  }
  return { count, levels };
}

function horizontals(hits: HitGrid): Shape[] {
  const { columns } = hits.grid;
  const totals = Array.from({ length: LEVEL_COUNT }, (_, level) => {
    let total = 0;
    for (let column = 0; column < columns; column += 1) total += hits.at(column, level);
    return total;
  });
  const found: Shape[] = [];
  for (let level = FIRST_LEVEL; level < LEVEL_COUNT - 1; level += 1) {
    if (totals[level]! < LEAST || !standsOut(totals, level)) continue;
    found.push(...linesAt(hits, level));
  }
  return found;
}

/** Much more than the levels around it, of which the next ones may share the line. */
function standsOut(totals: number[], level: number): boolean {
  const around = [-5, -4, -3, -2, 2, 3, 4, 5].map((by) => totals[level + by]).filter((n) => n !== undefined);
  const beside = Math.max(totals[level - 1] ?? 0, totals[level + 1] ?? 0);
  return totals[level]! >= Math.max(LEAST, median(around) * TIMES) && totals[level]! >= beside;
}

function linesAt(hits: HitGrid, level: number): Shape[] {
  const { columns, from, column } = hits.grid;
  return runs(columns, GAP, (at) => hits.at(at, level) > 0)
    .map(([left, right]): Shape & { filled: number } => {
      const cells = Array.from({ length: right - left + 1 }, (_, i) => hits.at(left + i, level));
      return {
        kind: 'horizontal',
        count: sum(cells),
        filled: cells.filter((n) => n > 0).length,
        selection: { from: from + left * column, to: from + (right + 1) * column, min_us: LEVELS[level - 1]!, max_us: LEVELS[level]! },
      };
    })
    .filter((line) => line.count >= LEAST && line.filled >= LEAST_COLUMNS)
    .map(({ filled: _, ...line }) => line);
}

/** First and last index of each run for which `is` holds, with holes of up to `gap`. */
function runs(length: number, gap: number, is: (index: number) => boolean): [number, number][] {
  const found: [number, number][] = [];
  for (let i = 0; i < length; i += 1) {
    if (!is(i)) continue;
    const last = found.at(-1);
    if (last && i - last[1] <= gap + 1) last[1] = i;
    else found.push([i, i]);
  }
  return found;
}

const sum = (values: number[]) => values.reduce((total, one) => total + one, 0);

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
