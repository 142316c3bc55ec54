// Which services and instances there are; asked every few seconds.

import { api } from '../api/client';
import type { Instance, Service } from '../api/types';

const EVERY_MS = 10_000;
/** Without any service a new one is waited for. */
const EAGER_MS = 2000;

class Catalogue {
  services = $state.raw<Service[]>([]);
  loaded = $state(false);
  private timer: ReturnType<typeof setTimeout> | undefined;

  get instances(): Instance[] {
    return this.services.flatMap((service) => service.instances);
  }

  get empty(): boolean {
    return this.loaded && this.services.length === 0;
  }

  async load(): Promise<void> {
    clearTimeout(this.timer);
    try {
      this.services = await api.services();
      this.loaded = true;
    } catch {
      // The banner says that the server is away.
    }
    this.timer = setTimeout(() => void this.load(), this.empty ? EAGER_MS : EVERY_MS);
  }

  stop(): void {
    clearTimeout(this.timer);
  }
}

export const catalogue = new Catalogue();
