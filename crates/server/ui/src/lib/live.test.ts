import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { LiveFrame, Meter } from '../api/types';
import { SECOND } from './url';

/** A stream that the test speaks into. */
class FakeStream {
  static all: FakeStream[] = [];
  static readonly CLOSED = 2;
  readyState = 0;
  private listeners = new Map<string, (event: unknown) => void>();
  constructor(readonly url: string) {
    FakeStream.all.push(this);
  }
  addEventListener(name: string, listener: (event: unknown) => void): void {
    this.listeners.set(name, listener);
  }
  close(): void {
    this.readyState = 2;
  }
  say(frame: LiveFrame): void {
    this.listeners.get('frame')?.({ data: JSON.stringify(frame) });
  }
}

const NOW = 1_763_719_200 * SECOND;
const ACTIVE = { t: NOW, available: true, count: 0, normal: 0, slow: 0, very_slow: 0, slow_from_us: 3e6, very_slow_from_us: 8e6, states: { own: 0, method: 0, sql: 0, http: 0, dbc: 0, socket: 0 }, by_instance: [], rows: [] };

function meter(t: number, count: number): Meter {
  return {
    t, count, error: 0, aborted: 0, sum_us: count * 1000, max_us: 1000, p50_us: 1000, p90_us: 1000, p95_us: 1000, p99_us: 1000, apdex: 1, satisfied: count,
    tolerating: 0, frustrated: 0, status: [0, count, 0, 0, 0, 0], sql_count: 0, sql_us: 0, http_count: 0, http_us: 0, dbc_us: 0, cpu: null, memory_bytes: null,
  };
}

function frame(t: number, count: number): LiveFrame {
  const step = Math.floor(t / (5 * SECOND)) * 5 * SECOND;
  return { t, meter: meter(t - SECOND, 1), meters: meter(step, count), hits: [[step, 0, count, 0]], active: { ...ACTIVE, t }, lost: 0, services: 1 };
}

/** Whether somebody looks. */
let page: { hidden: boolean; changed: () => void; addEventListener: (name: string, listener: () => void) => void };
let asked: URL[] = [];
let up = true;

/** Answers every range with one transaction in each step. */
function answer(input: string): Response {
  const url = new URL(input, 'http://server');
  asked.push(url);
  if (!up) throw new TypeError('network');
  const [from, to] = [Number(url.searchParams.get('from')), Number(url.searchParams.get('to'))];
  const starts = Array.from({ length: Math.max(0, Math.round((to - from) / (5 * SECOND))) }, (_, i) => from + i * 5 * SECOND);
  const body = url.pathname.endsWith('/meters')
    ? { from, to, step_us: 5 * SECOND, points: starts.map((t) => meter(t, 1)), total: meter(from, starts.length) }
    : url.pathname.endsWith('/hitmap')
      ? { from, to, column_us: 5 * SECOND, levels: [], cells: starts.map((_, i) => [i, 0, 1, 0]), count: starts.length, error: 0 }
      : { ...ACTIVE, t: Date.now() * 1000 };
  return { ok: true, status: 200, json: async () => body } as unknown as Response;
}

beforeEach(() => {
  vi.resetModules();
  vi.useFakeTimers({ now: NOW / 1000 });
  FakeStream.all = [];
  asked = [];
  up = true;
  vi.stubGlobal('EventSource', FakeStream);
  page = { hidden: false, changed: () => {}, addEventListener: (_, listener) => (page.changed = listener) };
  vi.stubGlobal('document', page);
  vi.stubGlobal('fetch', async (input: string) => answer(input));
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function started() {
  const { live } = await import('./live.svelte');
  const { HomeData } = await import('./home.svelte');
  live.start();
  live.watch({ service: ['shop'], instance: [] });
  const data = new HomeData();
  const end = data.show({ live: true, preset: '10m', width: 600 * SECOND }, { service: ['shop'], instance: [] });
  await vi.advanceTimersByTimeAsync(10);
  return { live, data, end };
}

describe('the live stream', () => {
  it('asks for its scope, and moves the window with each step', async () => {
    const { live, data, end } = await started();
    expect(FakeStream.all[0]!.url).toContain('service=shop');
    expect(data.hits.total().hit).toBe(120);
    FakeStream.all[0]!.say(frame(NOW + SECOND, 7));
    expect(live.status).toBe('live');
    expect(data.points.at(-1)?.count).toBe(7);
    expect(data.hits.total().hit).toBe(126);
    const before = data.grid.from;
    FakeStream.all[0]!.say(frame(NOW + 5 * SECOND, 2));
    expect(data.grid.from).toBe(before + 5 * SECOND);
    expect(data.points.at(-1)?.count).toBe(2);
    end();
  });

  it('asks once more for the columns that have ended, because some arrive late', async () => {
    const { data, end } = await started();
    FakeStream.all[0]!.say(frame(NOW + SECOND, 7));
    FakeStream.all[0]!.say(frame(NOW + 5 * SECOND, 2));
    asked = [];
    await vi.advanceTimersByTimeAsync(1500);
    expect(asked.map((url) => url.pathname).sort()).toEqual(['/api/v1/hitmap', '/api/v1/meters']);
    expect(data.points.at(-2)?.count).toBe(1);
    expect(data.points.at(-1)?.count).toBe(2);
    end();
  });

  it('polls when it is silent, says so, and fills the gap when it is back', async () => {
    const { live, data, end } = await started();
    FakeStream.all[0]!.say(frame(NOW + SECOND, 7));
    await vi.advanceTimersByTimeAsync(7000);
    expect(live.status).toBe('polling');
    expect(asked.some((url) => url.pathname.endsWith('/active'))).toBe(true);
    await vi.advanceTimersByTimeAsync(60_000);
    asked = [];
    const back = FakeStream.all.at(-1)!;
    back.say(frame(NOW + 68 * SECOND, 3));
    expect(live.status).toBe('live');
    await vi.advanceTimersByTimeAsync(10);
    expect(asked.map((url) => url.pathname)).toContain('/api/v1/hitmap');
    expect(data.points.filter((point) => point === null)).toEqual([]);
    end();
  });

  it('tells a server that has gone from a stream that is interrupted', async () => {
    const { live, end } = await started();
    up = false;
    await vi.advanceTimersByTimeAsync(12_000);
    expect(live.status).toBe('offline');
    up = true;
    await vi.advanceTimersByTimeAsync(6000);
    expect(live.status).toBe('polling');
    end();
  });

  it('lets go in the background, so that other pages get their connections, and fills the gap on return', async () => {
    const { live, data, end } = await started();
    FakeStream.all[0]!.say(frame(NOW + SECOND, 7));
    page.hidden = true;
    page.changed();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(FakeStream.all.every((stream) => stream.readyState === FakeStream.CLOSED)).toBe(true);
    asked = [];
    page.hidden = false;
    page.changed();
    const back = FakeStream.all.at(-1)!;
    expect(back.readyState).not.toBe(FakeStream.CLOSED);
    back.say(frame(NOW + 122 * SECOND, 3));
    await vi.advanceTimersByTimeAsync(10);
    expect(live.status).toBe('live');
    expect(asked.map((url) => url.pathname)).toContain('/api/v1/hitmap');
    expect(data.points.at(-1)?.count).toBeGreaterThan(0);
    end();
  });

  it('does not begin for a page that was opened in the background', async () => {
    page.hidden = true;
    const { end } = await started();
    await vi.advanceTimersByTimeAsync(30_000);
    expect(FakeStream.all).toEqual([]);
    page.hidden = false;
    page.changed();
    expect(FakeStream.all).toHaveLength(1);
    end();
  });

  it('listens to one scope at a time', async () => {
    const { live, data, end } = await started();
    const first = FakeStream.all[0]!;
    live.watch({ service: ['stock'], instance: [] });
    first.say(frame(NOW + SECOND, 99));
    expect(live.frame).toBeNull();
    expect(data.points.at(-1)?.count).not.toBe(99);
    expect(first.readyState).toBe(FakeStream.CLOSED);
    end();
  });
});
