// The filters of the transaction list as parameters of the URL and of the API, which share their names.

import type { Query } from '../api/client';
import type { Group } from '../api/types';
import type { Patch } from './url';

export const FILTER_KEYS = ['q', 'name', 'method', 'status', 'error', 'min_us', 'max_us', 'client', 'trace_id', 'aborted'] as const;
export type FilterKey = (typeof FILTER_KEYS)[number];

export const SORTS = ['end', 'elapsed', 'sql', 'http'] as const;
export type Sort = (typeof SORTS)[number];

export interface Order {
  sort: Sort;
  order: 'asc' | 'desc';
}

export function parseOrder(params: URLSearchParams): Order {
  return {
    sort: SORTS.find((one) => one === params.get('sort')) ?? 'end',
    order: params.get('order') === 'asc' ? 'asc' : 'desc',
  };
}

/** A click on a column's head: another column begins with the largest, the same one turns round. */
export function orderPatch(current: Order, sort: Sort): Patch {
  const order = current.sort === sort && current.order === 'desc' ? 'asc' : null;
  return { sort: sort === 'end' ? null : sort, order };
}

export function activeFilters(params: URLSearchParams): { key: FilterKey; value: string }[] {
  return FILTER_KEYS.flatMap((key) => {
    const value = params.get(key);
    return value === null || value === '' ? [] : [{ key, value }];
  });
}

export function filterQuery(params: URLSearchParams): Query {
  return Object.fromEntries(activeFilters(params).map(({ key, value }) => [key, value]));
}

/** A lower bound that was typed. An upper bound below it would leave nothing (the server refuses the two): it goes. */
export function atLeast(min_us: number | null, params: URLSearchParams): Patch {
  const max = params.get('max_us');
  return max !== null && min_us !== null && min_us > Number(max) ? { min_us, max_us: null } : { min_us };
}

export const GROUPINGS = ['name', 'instance', 'service'] as const;
export type Grouping = (typeof GROUPINGS)[number];

/** Groups of one name, one instance or one service. */
export interface Gathered {
  key: string;
  title: string;
  method: string;
  detail: string;
  count: number;
  error: number;
  mean_us: number;
  max_us: number;
  instances: number;
  /** The filters that leave only these. */
  filter: Patch;
}

function place(group: Group, by: Grouping): Pick<Gathered, 'title' | 'method' | 'detail' | 'filter'> {
  const service = { service: [group.service] };
  if (by === 'service') return { title: group.service, method: '', detail: '', filter: service };
  if (by === 'instance') return { title: group.instance, method: '', detail: group.service, filter: { ...service, instance: [group.instance] } };
  return { title: group.name, method: group.method, detail: group.service, filter: { ...service, name: group.name, method: group.method || null } };
}

/** Those that took most of the time first. */
export function gathered(groups: readonly Group[], by: Grouping): Gathered[] {
  const found = new Map<string, Gathered & { places: Set<string> }>();
  for (const group of groups) {
    const at = place(group, by);
    const key = [at.detail, at.method, at.title].join('\n');
    let row = found.get(key);
    if (!row) found.set(key, (row = { ...at, key, count: 0, error: 0, mean_us: 0, max_us: 0, instances: 0, places: new Set() }));
    const count = row.count + group.count;
    row.mean_us = (row.mean_us * row.count + group.mean_us * group.count) / Math.max(1, count);
    row.count = count;
    row.error += group.error;
    row.max_us = Math.max(row.max_us, group.max_us);
    row.instances = row.places.add(`${group.service}\n${group.instance}`).size;
  }
  return [...found.values()].sort((a, b) => b.count * b.mean_us - a.count * a.mean_us);
}

/** The value below which this share of the values lies; at least 1. */
export function percentileOf(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return Math.max(1, sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 1);
}
