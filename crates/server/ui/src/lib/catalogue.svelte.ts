// Which services and instances there are in the shown range; asked every few seconds.

import { api, type Range } from '../api/client';
import type { Instance, Service } from '../api/types';
import { live } from './live.svelte';
import { DAY, MINUTE, type TimeRange } from './url';

const EVERY_MS = 10_000;
/** Without any service a new one is waited for. */
const EAGER_MS = 2000;
/** Whoever reported in this time is known, even if silent in the shown range. */
const KNOWN = 30 * DAY;

class Catalogue {
  services = $state.raw<Service[]>([]);
  loaded = $state(false);
  /** Nobody has ever reported, as far as one can tell. */
  empty = $state(false);
  /** When the last of all reported, if none did in the shown range; else null. */
  lastSeen = $state<number | null>(null);
  private time: TimeRange = { live: true, preset: '10m', width: 10 * MINUTE };
  private timer: ReturnType<typeof setTimeout> | undefined;
  private turn = 0;

  get instances(): Instance[] {
    return this.services.flatMap((service) => service.instances);
  }

  /** Loads those of a range, and again every few seconds. */
  async show(time: TimeRange): Promise<void> {
    this.time = time;
    await this.load();
  }

  stop(): void {
    this.turn += 1;
    clearTimeout(this.timer);
  }

  private range(): Range {
    if (!this.time.live) return { from: this.time.from, to: this.time.to };
    return { from: live.now - this.time.width, to: live.now };
  }

  private async load(): Promise<void> {
    this.stop();
    const turn = this.turn;
    try {
      const services = await api.services(this.range());
      const known = services.length > 0 ? services : await api.services({ from: live.now - KNOWN, to: live.now });
      if (turn !== this.turn) return;
      this.services = services;
      this.empty = known.length === 0;
      this.lastSeen = services.length > 0 || this.empty ? null : Math.max(...known.map((one) => one.last_seen_us));
      this.loaded = true;
    } catch {
      // The banner says that the server is away.
    }
    if (turn === this.turn) this.timer = setTimeout(() => void this.load(), this.empty ? EAGER_MS : EVERY_MS);
  }
}

export const catalogue = new Catalogue();
