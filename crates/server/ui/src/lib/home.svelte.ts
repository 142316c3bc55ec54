// Meters and hitmap of the shown range, kept current while it is live.

import { api, type Scope } from '../api/client';
import type { LiveFrame, Meter } from '../api/types';
import { HitGrid } from './hitmap';
import { live } from './live.svelte';
import { COLUMN_UNIT, MINUTE, SECOND, gridOf, liveGrid, type Grid, type TimeRange } from './url';

/** Late arrivals are looked for this many columns back, each time a column ends. */
const TAIL = 12;

export class HomeData {
  /** Grows with every change; what draws on a canvas reads it. */
  version = $state(0);
  grid = $state.raw<Grid>(liveGrid(600 * SECOND, Date.now() * 1000));
  /** One for each column. */
  points = $state.raw<(Meter | null)[]>([]);
  total = $state.raw<Meter | null>(null);
  /** The last minute, where steps are too long to say what is going on now. */
  lately = $state.raw<Meter | null>(null);
  error = $state<string | null>(null);
  loaded = $state(false);
  hits = new HitGrid(this.grid);

  private range: TimeRange | null = null;
  private scope: Scope = { service: [], instance: [] };
  private controller = new AbortController();
  private timers: ReturnType<typeof setTimeout>[] = [];

  /** Shows a range from now on; returns what ends that. */
  show(range: TimeRange, scope: Scope): () => void {
    this.range = range;
    this.scope = scope;
    this.controller = new AbortController();
    void this.load();
    const streaming = range.live && this.currentGrid().column === COLUMN_UNIT;
    const endings = [
      live.onGap(() => range.live && void this.load()),
      streaming ? live.onFrame((frame) => this.take(frame)) : this.reloadEvery(range.live ? Math.max(5000, this.currentGrid().column / 6000) : 0),
    ];
    return () => {
      this.controller.abort();
      for (const timer of this.timers.splice(0)) clearTimeout(timer);
      for (const end of endings) end();
    };
  }

  private currentGrid(): Grid {
    const range = this.range!;
    return range.live ? liveGrid(range.width, live.now) : gridOf(range.from, range.to);
  }

  private reloadEvery(ms: number): () => void {
    if (ms === 0) return () => {};
    const timer = setInterval(() => void this.load(), ms);
    return () => clearInterval(timer);
  }

  private async load(): Promise<void> {
    const grid = this.currentGrid();
    const { signal } = this.controller;
    try {
      const [meters, hitmap, lately] = await Promise.all([
        api.meters(grid, this.scope, grid.column / SECOND, signal),
        api.hitmap(grid, this.scope, grid.columns, signal),
        this.range?.live && grid.column > COLUMN_UNIT ? this.lastMinute(signal) : null,
      ]);
      this.grid = grid;
      this.hits = new HitGrid(grid);
      // The server may have rounded the range to its own columns.
      if (hitmap.column_us === grid.column) this.hits.replace(hitmap.from, hitmap.to, hitmap.column_us, hitmap.cells);
      this.points = placed(new Array<Meter | null>(grid.columns).fill(null), grid, meters.points);
      this.total = meters.total;
      this.lately = lately;
      this.error = null;
      this.loaded = true;
      this.version += 1;
    } catch (error) {
      if (!signal.aborted) this.error = error instanceof Error ? error.message : String(error);
    }
  }

  private async lastMinute(signal: AbortSignal): Promise<Meter> {
    const to = Math.floor(live.now / COLUMN_UNIT) * COLUMN_UNIT;
    return (await api.meters({ from: to - MINUTE, to }, this.scope, 5, signal)).total;
  }

  private take(frame: LiveFrame): void {
    if (!this.loaded) return;
    const grid = this.currentGrid();
    if (grid.from !== this.grid.from) {
      const shift = Math.round((grid.from - this.grid.from) / grid.column);
      this.points = Array.from({ length: grid.columns }, (_, i) => this.points[i + shift] ?? null);
      this.hits.moveTo(grid);
      this.grid = grid;
      // The column that has just ended gets its last word a moment later, with whatever arrived late.
      this.timers = [...this.timers.slice(-4), setTimeout(() => void this.loadTail(), 1200)];
    }
    this.hits.replaceColumns(frame.hits);
    this.points = placed([...this.points], grid, [frame.meters]);
    this.version += 1;
  }

  private async loadTail(): Promise<void> {
    const grid = this.grid;
    const range = { from: grid.to - TAIL * grid.column, to: grid.to - grid.column };
    const { signal } = this.controller;
    try {
      const [meters, hitmap] = await Promise.all([
        api.meters(range, this.scope, grid.column / SECOND, signal),
        api.hitmap(range, this.scope, TAIL - 1, signal),
      ]);
      if (hitmap.column_us === this.grid.column) this.hits.replace(range.from, range.to, hitmap.column_us, hitmap.cells);
      this.points = placed([...this.points], this.grid, meters.points);
      this.version += 1;
    } catch {
      // The next column's end asks again.
    }
  }
}

function placed(points: (Meter | null)[], grid: Grid, meters: readonly Meter[]): (Meter | null)[] {
  for (const meter of meters) {
    const column = Math.round((meter.t - grid.from) / grid.column);
    if (column >= 0 && column < points.length) points[column] = meter;
  }
  return points;
}

/** The total of some points, for figures above charts. Percentiles cannot be added; see `Meter.total` of an answer. */
export function sum(points: readonly (Meter | null)[]): { count: number; error: number; aborted: number; apdex: number | null } {
  let count = 0;
  let error = 0;
  let aborted = 0;
  let satisfied = 0;
  let tolerating = 0;
  for (const point of points) {
    if (!point) continue;
    count += point.count;
    error += point.error;
    aborted += point.aborted;
    satisfied += point.satisfied;
    tolerating += point.tolerating;
  }
  return { count, error, aborted, apdex: count > 0 ? (satisfied + tolerating / 2) / count : null };
}
