// What some transactions have that others have not, as a ranked list. Pure.

import type { Transaction, TransactionList } from '../api/types';
import type { Patch } from './url';

export const ATTRIBUTES = ['name', 'outcome', 'error', 'status', 'instance', 'service', 'client', 'user', 'host', 'process'] as const;
export type Attribute = (typeof ATTRIBUTES)[number];

export interface Difference {
  attribute: Attribute;
  value: string;
  /** Shares of the chosen ones and of the others that have this value. */
  chosen: number;
  others: number;
  /** The filter that leaves only these, if there is one. */
  filter: Patch | null;
}

const VALUES: Record<Attribute, (one: Transaction) => string> = {
  name: (one) => `${one.method} ${one.name}`.trim(),
  outcome: (one) => (one.outcome === 'ok' ? '' : one.outcome),
  error: (one) => one.error_class,
  status: (one) => (one.status >= 400 ? String(one.status) : ''),
  instance: (one) => one.instance,
  service: (one) => one.service,
  client: (one) => one.client,
  user: (one) => one.user,
  host: (one) => one.host,
  process: (one) => `${one.instance} · ${one.pid}`,
};

const FILTERS: Partial<Record<Attribute, (one: Transaction) => Patch>> = {
  name: (one) => ({ name: one.name, method: one.method || null }),
  outcome: (one) => (one.outcome === 'aborted' ? { aborted: 'true', error: null } : { error: 'any' }),
  error: (one) => ({ error: one.error_class }),
  status: (one) => ({ status: String(one.status) }),
  instance: (one) => ({ service: [one.service], instance: [one.instance] }),
  service: (one) => ({ service: [one.service] }),
  client: (one) => ({ client: one.client }),
  user: (one) => ({ q: one.user }),
};

/** Less than this of a difference is noise. */
const LEAST = 0.08;
const MOST = 8;
/** With fewer there is nothing to compare. */
export const LEAST_ROWS = 5;

/** Of the first rows of each list. The others may hold the chosen ones as well: they are told apart by their ids. */
export function contrast(chosen: TransactionList, others: TransactionList): Difference[] {
  const ids = new Set(chosen.rows.map((one) => one.id));
  const rest = others.rows.filter((one) => !ids.has(one.id));
  if (chosen.rows.length < LEAST_ROWS || rest.length < LEAST_ROWS) return [];
  const found = ATTRIBUTES.flatMap((attribute) => differences(attribute, chosen.rows, rest));
  return withoutEchoes(found.sort((a, b) => b.chosen - b.others - (a.chosen - a.others))).slice(0, MOST);
}

function differences(attribute: Attribute, chosen: readonly Transaction[], rest: readonly Transaction[]): Difference[] {
  const valueOf = VALUES[attribute];
  const usual = counted(rest.map(valueOf));
  const examples = new Map(chosen.map((one) => [valueOf(one), one]));
  return [...counted(chosen.map(valueOf))]
    .map(([value, count]): Difference => ({
      attribute, value, chosen: count / chosen.length, others: (usual.get(value) ?? 0) / rest.length, filter: FILTERS[attribute]?.(examples.get(value)!) ?? null,
    }))
    .filter((one) => one.value !== '' && one.chosen - one.others >= LEAST);
}

/** A host that says what its instance has said already is left out. */
function withoutEchoes(list: Difference[]): Difference[] {
  const same = (a: Difference, b: Difference) => Math.abs(a.chosen - b.chosen) < 1e-9 && Math.abs(a.others - b.others) < 1e-9;
  const PLACES: readonly Attribute[] = ['instance', 'host', 'process', 'service'];
  const ERRORS: readonly Attribute[] = ['error', 'outcome', 'status'];
  const group = (one: Difference) => (PLACES.includes(one.attribute) ? 1 : ERRORS.includes(one.attribute) ? 2 : 0);
  const rank = (one: Difference) => ATTRIBUTES.indexOf(one.attribute);
  return list.filter((one) => group(one) === 0 || !list.some((other) => other !== one && group(other) === group(one) && same(one, other) && rank(other) < rank(one)));
}

function counted(values: string[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const value of values) found.set(value, (found.get(value) ?? 0) + 1);
  return found;
}
