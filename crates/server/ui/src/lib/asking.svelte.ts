// Questions that a view asks the server: when, and how often again.

import { untrack } from 'svelte';

/**
 * Asks now, again when `key` changes, and every `every` ms unless that is 0. Nothing else that `ask` reads makes it ask again:
 * the time of the server, for one, changes each second. `again` is true for the turns after the first. What is under way ends with the view or with the next key.
 */
export function asking(key: () => unknown, every: () => number, ask: (signal: AbortSignal, again: boolean) => Promise<void>): void {
  $effect(() => {
    key();
    const ms = every();
    const controller = new AbortController();
    const turn = (again: boolean) => untrack(() => void ask(controller.signal, again));
    turn(false);
    const timer = ms > 0 ? setInterval(() => turn(true), ms) : undefined;
    return () => {
      controller.abort();
      clearInterval(timer);
    };
  });
}
