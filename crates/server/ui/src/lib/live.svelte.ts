// The live stream of the visible scope: SSE, polling while it is away, and word of the gap when it is back.

import { ApiError, api, liveStream, type Scope } from '../api/client';
import type { Active, LiveFrame } from '../api/types';
import { SECOND } from './url';

/** Frames come every second; this long without one is a lost stream. */
const SILENCE_MS = 5000;
const POLL_MS = 5000;
/** A page in the background lets go of the stream after this long: browsers open six connections to a server, for all pages. */
const HIDDEN_MS = 10_000;

export type LiveStatus = 'connecting' | 'live' | 'polling' | 'offline' | 'locked';

class Live {
  status = $state<LiveStatus>('connecting');
  frame = $state.raw<LiveFrame | null>(null);
  /** From the stream or, while it is away, from polling. */
  active = $state.raw<Active | null>(null);
  /** Server's clock minus ours, µs. */
  private skew = 0;
  /** The server's time, renewed every second: what "now" means on the page. */
  now = $state(Date.now() * 1000);

  private scope: Scope = { service: [], instance: [] };
  private source: EventSource | null = null;
  private listeners = new Set<(frame: LiveFrame) => void>();
  private gapListeners = new Set<() => void>();
  private lastFrame = performance.now();
  private lastPoll = 0;
  private hiddenSince: number | null = null;
  /** The stream was let go of: its return is a gap to fill, but nobody's trouble. */
  private missed = false;

  start(): void {
    setInterval(() => this.tick(), 1000);
    if (document.hidden) this.hiddenSince = performance.now();
    document.addEventListener('visibilitychange', () => {
      this.hiddenSince = document.hidden ? performance.now() : null;
      if (!document.hidden && !this.source) this.connect();
    });
  }

  /** Looks at another scope from now on. */
  watch(scope: Scope): void {
    this.scope = scope;
    this.frame = null;
    this.active = null;
    this.connect();
  }

  lock(): void {
    this.status = 'locked';
    this.close();
  }

  onFrame(listener: (frame: LiveFrame) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Called when the stream is back, or polling has news: what was missed must be fetched. */
  onGap(listener: () => void): () => void {
    this.gapListeners.add(listener);
    return () => this.gapListeners.delete(listener);
  }

  private connect(): void {
    this.close();
    if (this.status === 'locked') this.status = 'connecting';
    this.lastFrame = performance.now();
    // Opened in the background: the stream begins when somebody looks.
    if (document.hidden) return;
    const source = liveStream(this.scope);
    this.source = source;
    source.addEventListener('frame', (event) => this.received(source, event as MessageEvent<string>));
    source.addEventListener('error', () => {
      // The browser retries by itself unless the server refused; then the next tick does.
      if (source.readyState === EventSource.CLOSED) this.lost();
    });
  }

  private received(source: EventSource, event: MessageEvent<string>): void {
    if (source !== this.source) return;
    const frame = JSON.parse(event.data) as LiveFrame;
    const returned = this.missed || (this.status !== 'live' && this.status !== 'connecting');
    this.missed = false;
    this.lastFrame = performance.now();
    this.skew = frame.t - Date.now() * 1000;
    this.now = frame.t;
    this.frame = frame;
    this.active = frame.active;
    this.status = 'live';
    if (returned) for (const listener of this.gapListeners) listener();
    for (const listener of this.listeners) listener(frame);
  }

  private tick(): void {
    if (this.status === 'locked') return;
    this.now = Date.now() * 1000 + this.skew;
    if (this.hiddenSince !== null && performance.now() - this.hiddenSince > HIDDEN_MS) {
      this.close();
      this.missed = true;
      this.status = 'connecting';
      return;
    }
    if (performance.now() - this.lastFrame > SILENCE_MS) this.lost();
  }

  private lost(): void {
    if (this.status === 'locked') return;
    if (this.status !== 'offline') this.status = 'polling';
    if (performance.now() - this.lastPoll < POLL_MS) return;
    this.lastPoll = performance.now();
    if (!this.source || this.source.readyState === EventSource.CLOSED) this.connect();
    void this.poll();
  }

  private async poll(): Promise<void> {
    try {
      const active = await api.active(this.scope);
      if (this.status === 'live') return;
      this.active = active;
      this.skew = active.t > 0 ? active.t - Date.now() * 1000 : this.skew;
      if (this.status !== 'locked') this.status = 'polling';
      for (const listener of this.gapListeners) listener();
    } catch (error) {
      if (this.status !== 'locked' && !(error instanceof ApiError)) this.status = 'offline';
    }
  }

  private close(): void {
    this.source?.close();
    this.source = null;
  }
}

export const live = new Live();

/** µs, floored to whole seconds: for texts that need not change more often. */
export function wholeSecond(us: number): number {
  return Math.floor(us / SECOND) * SECOND;
}
