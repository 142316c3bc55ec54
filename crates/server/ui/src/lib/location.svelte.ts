// The address bar as state.

import type { Range, Scope } from '../api/client';
import {
  SCOPE_KEYS, TIME_KEYS, parsePlace, parseTime, patched, picked, placeHash, timePatch, type Patch, type Place, type TimeRange, type View,
} from './url';

class Location {
  place = $state.raw<Place>(parsePlace(location.hash));

  constructor() {
    addEventListener('hashchange', () => (this.place = parsePlace(location.hash)));
  }

  get view(): View {
    return this.place.view;
  }

  get params(): URLSearchParams {
    return this.place.params;
  }

  get time(): TimeRange {
    return parseTime(this.place.params);
  }

  /** The range to ask about: a live one ends now. */
  rangeAt(now: number): Range {
    const time = this.time;
    return time.live ? { from: now - time.width, to: now } : { from: time.from, to: time.to };
  }

  get scope(): Scope {
    return { service: this.place.params.getAll('service'), instance: this.place.params.getAll('instance') };
  }

  /** A link to a view that keeps time and scope. */
  href(view: View, id = '', patch: Patch = {}): string {
    const kept = picked(this.place.params, [...TIME_KEYS, ...SCOPE_KEYS]);
    return placeHash({ view, id, params: patched(kept, patch) });
  }

  /** The same page with other parameters. */
  here(patch: Patch): string {
    return placeHash({ ...this.place, params: patched(this.place.params, patch) });
  }

  go(hash: string): void {
    if (hash === location.hash) return;
    history.pushState(null, '', hash);
    this.place = parsePlace(hash);
  }

  /** Like `go`, but back does not come here again: for what is adjusted rather than visited. */
  replace(hash: string): void {
    history.replaceState(null, '', hash);
    this.place = parsePlace(hash);
  }

  change(patch: Patch): void {
    this.go(this.here(patch));
  }

  setTime(range: TimeRange): void {
    this.go(this.here({ ...timePatch(range), sel: null }));
  }
}

export const loc = new Location();
