// How kinds of steps look: a letter-like sign and a colour; the name is in the catalogue.

import type { Breakdown, StepKind } from '../api/types';

export const KIND_COLOURS: Record<StepKind, string> = {
  sql: '--c-sql', fetch: '--c-fetch', dbc: '--c-dbc', http: '--c-http', method: '--c-method',
  message: '--c-own', log: '--c-own', stack: '--c-own', error: '--bad',
};

export const PART_COLOURS: Record<keyof Breakdown, string> = {
  sql_us: '--c-sql', fetch_us: '--c-fetch', dbc_us: '--c-dbc', http_us: '--c-http', method_us: '--c-method', own_us: '--c-own', gap_us: '--c-gap',
};

const SERVICE_COLOURS = ['--accent', '--c-http', '--c-method', '--c-dbc', '--s-4xx', '--c-fetch', '--p99', '--s-2xx'];

/** A colour for each service, in the order in which they appear. */
export function serviceColours(services: Iterable<string>): Map<string, string> {
  const colours = new Map<string, string>();
  for (const service of services) {
    if (!colours.has(service)) colours.set(service, SERVICE_COLOURS[colours.size % SERVICE_COLOURS.length]!);
  }
  return colours;
}
