import { describe, expect, it } from 'vitest';
import type { HitCell } from '../api/types';
import { HitGrid, LEVELS } from './hitmap';
import { inPlaces, shapesOf, type Shape } from './shapes';
import { gridOf } from './url';

const COLUMN = 5_000_000;
const FROM = 1_700_000_000_000_000;
const levelOf = (us: number) => LEVELS.findIndex((upper) => upper === 0 || us < upper);

/** Ten minutes with some noise everywhere, and `cells` of column, µs, count. */
function scene(cells: [number, number, number][]): HitGrid {
  const grid = new HitGrid(gridOf(FROM, FROM + 120 * COLUMN));
  const all: HitCell[] = [];
  for (let column = 0; column < 120; column += 1) {
    all.push([column, 0, 40, 0], [column, 1, 12, 1], [column, 5, 2, 0]);
    // A slow one here and there.
    if (column % 3 === 0) all.push([column, 9 + ((column * 7) % 40), 1, 0]);
  }
  for (const [column, us, count] of cells) all.push([column, levelOf(us), 0, count]);
  grid.replace(grid.grid.from, grid.grid.to, COLUMN, all);
  return grid;
}

describe('shapes on the hitmap', () => {
  it('are not seen in what is usual', () => {
    expect(shapesOf(scene([]))).toEqual([]);
    expect(shapesOf(new HitGrid(gridOf(FROM, FROM + 120 * COLUMN)))).toEqual([]);
  });
  it('many that ended together are a vertical line', () => {
    const cells = Array.from({ length: 26 }, (_, i): [number, number, number] => [60, 1_100_000 + i * 500_000, 1]);
    const [shape, ...others] = shapesOf(scene(cells));
    expect(others).toEqual([]);
    expect(shape).toMatchObject({ kind: 'vertical', selection: { max_us: null } });
    expect(shape!.count).toBeGreaterThanOrEqual(26);
    expect((shape!.selection.from - FROM) / COLUMN).toBeCloseTo(60, -1);
    expect(shape!.selection.to - shape!.selection.from).toBe(COLUMN);
  });
  it('a time-out of ten seconds is a horizontal line', () => {
    const cells = Array.from({ length: 14 }, (_, i): [number, number, number] => [40 + i, 10_040_000, 1 + (i % 2)]);
    const [shape, ...others] = shapesOf(scene(cells));
    expect(others).toEqual([]);
    expect(shape).toMatchObject({ kind: 'horizontal', selection: { min_us: 10_000_000, max_us: 10_500_000 } });
    expect(shape!.count).toBe(21);
  });
  it('a flood that lasts is neither', () => {
    const cells: [number, number, number][] = [];
    for (let column = 50; column < 80; column += 1) for (let i = 0; i < 12; i += 1) cells.push([column, 1_100_000 + i * 700_000 + column * 40_000, 1]);
    expect(shapesOf(scene(cells)).filter((shape) => shape.kind === 'vertical')).toEqual([]);
  });
  it('keep their places on the screen while others come and go', () => {
    const shape = (from: number, to: number, count = 9): Shape => ({ kind: 'vertical', count, selection: { from, to, min_us: 1, max_us: null } });
    const [a, b, c] = [shape(0, 10), shape(20, 30), shape(40, 50)];
    const first = inPlaces([], [a, b]);
    expect(first).toEqual([a, b, null, null]);
    const second = inPlaces(first, [shape(20, 32), c]);
    expect(second).toEqual([c, shape(20, 32), null, null]);
    expect(inPlaces(second, [a, c])).toEqual([c, a, null, null]);
    expect(inPlaces(second, [shape(25, 32, 12)])).toEqual([null, shape(25, 32, 12), null, null]);
  });
});
