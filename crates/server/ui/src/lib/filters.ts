// The filters of the transaction list as parameters of the URL and of the API, which share their names.

import type { Query } from '../api/client';
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
