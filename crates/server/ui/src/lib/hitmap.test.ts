import { describe, expect, it } from 'vitest';
import type { HitCell } from '../api/types';
import { HitGrid, LEVELS, ROWS, ZOOMS, parseSelection, rectOf, rectOfSelection, rowOfLevel, rowsToTimes, selectionOf, selectionText, timeLabels, zoomedRange, type CellRect } from './hitmap';
import { DAY, HOUR, MINUTE, SECOND, gridOf, liveGrid, type Grid } from './url';

const GRID: Grid = { from: 1000 * SECOND, to: 1600 * SECOND, column: 5 * SECOND, columns: 120 };

/** The same question asked of single transactions, as the server does. */
function levelOf(elapsed: number): number {
  const level = LEVELS.findIndex((upper) => upper !== 0 && elapsed < upper);
  return level < 0 ? LEVELS.length - 1 : level;
}

function random(seed: number): () => number {
  let state = seed;
  return () => ((state = (state * 1_664_525 + 1_013_904_223) >>> 0) / 2 ** 32);
}

describe('levels', () => {
  it('are 120, ending at 78 s and the rest', () => {
    expect(LEVELS.length).toBe(120);
    expect(LEVELS[0]).toBe(125_000);
    expect(LEVELS[39]).toBe(5 * SECOND);
    expect(LEVELS[59]).toBe(10 * SECOND);
    expect(LEVELS[79]).toBe(20 * SECOND);
    expect(LEVELS[99]).toBe(40 * SECOND);
    expect(LEVELS[118]).toBe(78 * SECOND);
    expect(LEVELS[119]).toBe(0);
  });
  it('fill every row with whole levels at every zoom', () => {
    for (const zoom of ZOOMS) {
      for (let level = 0; level < LEVELS.length; level += 1) {
        const row = rowOfLevel(level, zoom);
        const { min, max } = rowsToTimes(row, row, zoom);
        const lower = level === 0 ? 0 : LEVELS[level - 1]!;
        expect(lower).toBeGreaterThanOrEqual(min);
        if (max !== null) expect(LEVELS[level]!).toBeLessThanOrEqual(max);
      }
    }
  });
});

describe('a rectangle', () => {
  it('counts exactly what a list of its times and response times would hold', () => {
    const next = random(7);
    const transactions = Array.from({ length: 5000 }, () => ({
      end: GRID.from + Math.floor(next() * 600) * SECOND,
      elapsed: Math.floor(next() ** 4 * 100 * SECOND),
      error: next() < 0.1,
    }));
    const cells: HitCell[] = transactions.map((t) => [
      Math.floor((t.end - GRID.from) / GRID.column),
      levelOf(t.elapsed),
      t.error ? 0 : 1,
      t.error ? 1 : 0,
    ]);
    const grid = new HitGrid(GRID);
    grid.replace(GRID.from, GRID.to, GRID.column, cells);
    for (const zoom of ZOOMS) {
      for (let i = 0; i < 40; i += 1) {
        const corner = () => ({ column: Math.floor(next() * 130) - 5, row: Math.floor(next() * (ROWS + 3)) - 1 });
        const rect = rectOf(corner(), corner(), GRID.columns);
        const wanted = selectionOf(rect, GRID, zoom);
        const listed = transactions.filter(
          (t) =>
            t.end >= wanted.from &&
            t.end < wanted.to &&
            t.elapsed >= (wanted.min_us ?? 0) &&
            (wanted.max_us === null || t.elapsed < wanted.max_us),
        );
        const counted = grid.count(rect, zoom);
        expect(counted.hit + counted.error).toBe(listed.length);
        expect(counted.error).toBe(listed.filter((t) => t.error).length);
      }
    }
  });
  it('is found again from its selection', () => {
    for (const zoom of ZOOMS) {
      for (const rect of [
        { left: 3, right: 9, low: 0, high: 4 },
        { left: 0, right: 119, low: 12, high: ROWS },
      ] satisfies CellRect[]) {
        expect(rectOfSelection(selectionOf(rect, GRID, zoom), GRID, zoom)).toEqual(rect);
      }
    }
    expect(rectOfSelection({ from: 0, to: 5, min_us: null, max_us: null }, GRID, 5)).toBeNull();
  });
});

describe('the window', () => {
  it('keeps what stays in view when it moves, and replaces columns whole', () => {
    const grid = new HitGrid(GRID);
    grid.replace(GRID.from, GRID.to, GRID.column, [[0, 0, 7, 0], [10, 3, 2, 1]]);
    grid.moveTo({ ...GRID, from: GRID.from + 5 * GRID.column, to: GRID.to + 5 * GRID.column });
    expect(grid.total()).toEqual({ hit: 2, error: 1 });
    grid.replaceColumns([[GRID.from + 10 * GRID.column, 4, 5, 0]]);
    expect(grid.total()).toEqual({ hit: 5, error: 0 });
    grid.moveTo({ ...GRID, from: GRID.to * 2, to: GRID.to * 2 + 600 * SECOND });
    expect(grid.total()).toEqual({ hit: 0, error: 0 });
  });
  it('ignores cells that lie outside', () => {
    const grid = new HitGrid(GRID);
    grid.replaceColumns([[0, 0, 1, 1], [GRID.from, 500, 1, 1], [GRID.to, 0, 1, 0]]);
    expect(grid.total()).toEqual({ hit: 0, error: 0 });
  });
});

describe('labels of time', () => {
  const now = 1_763_719_200 * SECOND + 123;
  const style = { locale: 'en', utc: true };
  for (const width of [10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY]) {
    it(`are round over ${width / MINUTE} minutes, and far enough apart`, () => {
      const labels = timeLabels(liveGrid(width, now), 9, style);
      expect(labels.length).toBeGreaterThan(4);
      for (let i = 1; i < labels.length; i += 1) expect(labels[i]!.column - labels[i - 1]!.column).toBeGreaterThanOrEqual(9);
      for (const { text } of labels) expect(text).toMatch(width <= 10 * MINUTE ? /^\d\d:\d\d$/ : width <= 6 * HOUR ? /^\d\d:[0-5][05]$/ : width === DAY ? /^\d[02468]:00$/ : /^Nov \d+$/);
    });
  }
});

describe('a selection in the address bar', () => {
  it('comes back as it was', () => {
    for (const one of [{ from: 5, to: 9, min_us: null, max_us: null }, { from: 5, to: 9, min_us: 125_000, max_us: 250_000 }, { from: 5, to: 9, min_us: 125_000, max_us: null }]) {
      expect(parseSelection(selectionText(one))).toEqual(one);
    }
  });
  it('is nothing if it is something else', () => {
    for (const text of [null, '', '5-9', '9-5--', 'a-b-c-d', '5-9-1-2-3', '5-9--x']) expect(parseSelection(text)).toBeNull();
  });
});

describe('zooming in time', () => {
  const grid = gridOf(0, 600_000_000);
  it('keeps the time under the pointer where it is', () => {
    const { from, to } = zoomedRange(grid, 150_000_000, true);
    expect([from, to]).toEqual([75_000_000, 375_000_000]);
    expect(zoomedRange(gridOf(from, to), 150_000_000, false)).toEqual({ from: 0, to: 600_000_000 });
  });
  it('ends at a minute and at a week', () => {
    let range = { from: 0, to: 600_000_000 };
    for (let i = 0; i < 12; i += 1) range = zoomedRange(gridOf(range.from, range.to), range.from, true);
    expect(range.to - range.from).toBe(60_000_000);
    for (let i = 0; i < 30; i += 1) range = zoomedRange(gridOf(range.from, range.to), range.from, false);
    expect(range.to - range.from).toBeLessThanOrEqual(7 * 86_400_000_000);
  });
});
