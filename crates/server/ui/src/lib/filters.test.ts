import { describe, expect, it } from 'vitest';
import { activeFilters, filterQuery, gathered, orderPatch, parseOrder, percentileOf } from './filters';

describe('filters', () => {
  const params = new URLSearchParams('service=shop&from=1&to=2&q=a&error=any&status=&min_us=5&sort=sql');
  it('are the known parameters that have a value', () => {
    expect(activeFilters(params).map((one) => one.key)).toEqual(['q', 'error', 'min_us']);
    expect(filterQuery(params)).toEqual({ q: 'a', error: 'any', min_us: '5' });
  });
  it('sort by one column, and turn round at the second click', () => {
    expect(parseOrder(params)).toEqual({ sort: 'sql', order: 'desc' });
    expect(orderPatch({ sort: 'sql', order: 'desc' }, 'sql')).toEqual({ sort: 'sql', order: 'asc' });
    expect(orderPatch({ sort: 'sql', order: 'asc' }, 'sql')).toEqual({ sort: 'sql', order: null });
    expect(orderPatch({ sort: 'sql', order: 'asc' }, 'end')).toEqual({ sort: null, order: null });
  });
});

describe('groups', () => {
  const group = (instance: string, count: number, mean_us: number) =>
    ({ service: 's', instance, name: '/x', method: 'GET', count, error: 1, mean_us, max_us: mean_us * 2 });
  it('add up over instances, means by weight', () => {
    expect(gathered([group('a', 1, 100), group('b', 3, 200)])).toEqual([
      { service: 's', name: '/x', method: 'GET', count: 4, error: 2, mean_us: 175, max_us: 400, instances: 2 },
    ]);
  });
  it('have percentiles that no single outlier moves', () => {
    expect(percentileOf([...new Array<number>(99).fill(10), 10_000], 0.95)).toBe(10);
    expect(percentileOf([], 0.95)).toBe(1);
  });
});
