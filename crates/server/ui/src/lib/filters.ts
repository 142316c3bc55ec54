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

/** Groups by service and name, over instances; by time spent. */
export function gathered(groups: readonly Group[]): (Omit<Group, 'instance'> & { instances: number })[] {
  const found = new Map<string, Omit<Group, 'instance'> & { instances: number }>();
  for (const group of groups) {
    const key = [group.service, group.method, group.name].join('\n');
    const row = found.get(key);
    if (!row) {
      const { instance: _, ...rest } = group;
      found.set(key, { ...rest, instances: 1 });
      continue;
    }
    const count = row.count + group.count;
    row.mean_us = (row.mean_us * row.count + group.mean_us * group.count) / Math.max(1, count);
    row.count = count;
    row.error += group.error;
    row.max_us = Math.max(row.max_us, group.max_us);
    row.instances += 1;
  }
  return [...found.values()].sort((a, b) => b.count * b.mean_us - a.count * a.mean_us);
}

/** The value below which this share of the values lies; at least 1. */
export function percentileOf(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return Math.max(1, sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 1);
}
