// A very busy fleet, whose clock may run faster: for what a page does in an hour, or with a million transactions in sight.

const SECOND = 1_000_000;
const COLUMN = 5 * SECOND;
const LEVELS = 120;
const INSTANCES = 200;
const STATES = ['own', 'method', 'sql', 'http', 'dbc', 'socket'];

export class Flood {
  constructor({ speed = 1, running = 150 } = {}) {
    this.speed = speed;
    this.running = running;
    this.began = Date.now() * 1000;
  }

  now() {
    return this.began + (Date.now() * 1000 - this.began) * this.speed;
  }

  /** How many ended in a cell; the same whenever it is asked. */
  cell(start, level) {
    const noise = Math.imul((start / COLUMN) ^ (level * 40_503), 2_654_435_761) >>> 24;
    return level < 30 ? 40 + noise : noise % 37 === 0 ? 1 + (noise % 5) : 0;
  }

  column(start, key, width = COLUMN) {
    const cells = [];
    for (let level = 0; level < LEVELS; level += 1) {
      const count = this.cell(start, level) * (width / COLUMN);
      if (count > 0) cells.push([key, level, count, level % 11 === 0 ? 1 : 0]);
    }
    return cells;
  }

  meter(t, seconds) {
    const count = 1000 * seconds;
    return {
      t, count, error: 12, aborted: 0, sum_us: count * 240_000, max_us: 9_000_000, p50_us: 90_000, p90_us: 700_000, p95_us: 1_300_000 + ((t / SECOND) % 97) * 4000, p99_us: 4_000_000,
      apdex: 0.93, satisfied: count - 60, tolerating: 40, frustrated: 20, status: [0, count - 50, 20, 18, 12, 0],
      sql_count: count * 4, sql_us: count * 100_000, http_count: count, http_us: count * 30_000, dbc_us: 0, cpu: 0.6, memory_bytes: 900_000_000,
    };
  }

  active(now) {
    const count = (n) => Math.floor(this.running / n);
    const rows = Array.from({ length: this.running }, (_, i) => {
      // Each of them ends now and then, and another one begins.
      const life = 4 + (i % 23);
      const start = Math.floor(now / SECOND / life) * life * SECOND - i * 1000;
      return {
        id: `${Math.floor(start / SECOND).toString(16)}${i.toString(16).padStart(8, '0')}`, service: 'flood', instance: `web-${i % INSTANCES}`, pid: 100 + i, name: `GET /r/${i % 40}`, start_us: start,
        elapsed_us: now - start, speed: 'normal', state: STATES[i % 6], text: i % 6 === 2 ? 'SELECT * FROM orders WHERE id = # AND state IN (#' : '', thread: String(i),
      };
    });
    rows.sort((a, b) => b.elapsed_us - a.elapsed_us);
    const by_instance = Array.from({ length: INSTANCES }, (_, i) => ({ service: 'flood', instance: `web-${i}`, normal: 1 + (i % 3), slow: i % 5 === 0 ? 1 : 0, very_slow: i % 50 === 0 ? 1 : 0 }));
    return {
      t: now, available: true, count: this.running, normal: count(2), slow: count(3), very_slow: count(6), slow_from_us: 3e6, very_slow_from_us: 8e6, states: Object.fromEntries(STATES.map((state) => [state, count(6)])), by_instance, rows,
    };
  }

  frame() {
    const now = Math.floor(this.now() / SECOND) * SECOND;
    const start = Math.floor(now / COLUMN) * COLUMN;
    return { t: now, meter: this.meter(now - SECOND, 1), meters: this.meter(start, 5), hits: this.column(start, start), active: this.active(now), lost: 0, services: 1 };
  }

  meters({ from, to, step }) {
    const width = step * SECOND;
    const points = [];
    for (let t = Math.floor(from / width) * width; t < to; t += width) points.push(this.meter(t, t > this.now() ? 0 : step));
    return { from, to, step_us: width, points, total: this.meter(from, (to - from) / SECOND) };
  }

  hitmap({ from, to, columns }) {
    const column = Math.max(1, Math.ceil((to - from) / columns / COLUMN)) * COLUMN;
    const begin = Math.floor(from / column) * column;
    const cells = [];
    for (let t = begin; t < Math.min(to, this.now()); t += column) cells.push(...this.column(t, (t - begin) / column, column));
    const count = cells.reduce((sum, cell) => sum + cell[2] + cell[3], 0);
    return { from: begin, to, column_us: column, levels: [], cells, count, error: 0 };
  }

  services(now) {
    const instances = Array.from({ length: INSTANCES }, (_, i) => ({
      id: `web-${i}`, service: 'flood', host: `h-${i % 20}`, pids: [100 + i], runtime: 'CPython 3.13.0', agent: 'whatap 3.0.0', first_seen_us: now - 3600 * SECOND, last_seen_us: now, connected: true,
      cpu: 0.2, memory_bytes: 90_000_000, threads: 9, fds: 40, host_cpu: 0.5, host_memory_bytes: 8e9, host_memory_limit: 16e9, load1: 2,
    }));
    return [{ name: 'flood', instances, tps: 1000, error_rate: 0.01, last_seen_us: now }];
  }
}
