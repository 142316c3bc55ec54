import { describe, expect, it } from 'vitest';
import { activeFilters, atLeast, filterQuery, gathered, orderPatch, parseOrder, percentileOf } from './filters';

describe('filters', () => {
  const params = new URLSearchParams('service=shop&from=1&to=2&q=a&error=any&status=&min_us=5&sort=sql');
  it('are the known parameters that have a value', () => {
    expect(activeFilters(params).map((one) => one.key)).toEqual(['q', 'error', 'min_us']);
    expect(filterQuery(params)).toEqual({ q: 'a', error: 'any', min_us: '5' });
  });
  it('never ask for at least more than at most', () => {
    const bounded = new URLSearchParams('max_us=1000');
    expect(atLeast(2000, bounded)).toEqual({ min_us: 2000, max_us: null });
    expect(atLeast(1000, bounded)).toEqual({ min_us: 1000 });
    expect(atLeast(null, bounded)).toEqual({ min_us: null });
    expect(atLeast(2000, params)).toEqual({ min_us: 2000 });
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
    expect(gathered([group('a', 1, 100), group('b', 3, 200)], 'name')).toMatchObject([
      { title: '/x', method: 'GET', count: 4, error: 2, mean_us: 175, max_us: 400, instances: 2, filter: { service: ['s'], name: '/x', method: 'GET' } },
    ]);
  });
  it('are of instances or services as well, the one that took most time first', () => {
    const all = [group('a', 1, 100), { ...group('a', 2, 10), name: '/y' }, group('b', 3, 200)];
    expect(gathered(all, 'instance')).toMatchObject([{ title: 'b', count: 3, filter: { service: ['s'], instance: ['b'] } }, { title: 'a', count: 3, mean_us: 40 }]);
    expect(gathered(all, 'service')).toMatchObject([{ title: 's', count: 6, instances: 2, filter: { service: ['s'] } }]);
  });
  it('have percentiles that no single outlier moves', () => {
    expect(percentileOf([...new Array<number>(99).fill(10), 10_000], 0.95)).toBe(10);
    expect(percentileOf([], 0.95)).toBe(1);
  });
});
