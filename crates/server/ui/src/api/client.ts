// The only file that knows `fetch`.

import type {
  Active, Hitmap, Lost, Meters, Profile, Self, Service, Statistics, StatisticsKind, Trace, TransactionList,
} from './types';

const BASE = '/api/v1';

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

type Value = string | number | boolean | null | undefined | readonly string[];
export type Query = Record<string, Value>;

export function queryString(query: Query): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value === null || value === undefined || value === '') continue;
    if (typeof value === 'object') for (const one of value) params.append(key, one);
    else params.set(key, String(value));
  }
  const text = params.toString();
  return text ? `?${text}` : '';
}

/** Called when the server wants a login. */
let onUnauthorized: () => void = () => {};
export function whenUnauthorized(callback: () => void): void {
  onUnauthorized = callback;
}

async function request(path: string, init: RequestInit): Promise<Response> {
  const response = await fetch(BASE + path, { credentials: 'same-origin', ...init });
  if (response.ok) return response;
  if (response.status === 401) onUnauthorized();
  let code = 'http';
  let message = `HTTP ${response.status}`;
  try {
    const body: unknown = await response.json();
    const error = (body as { error?: { code?: unknown; message?: unknown } }).error;
    if (typeof error?.code === 'string') code = error.code;
    if (typeof error?.message === 'string') message = error.message;
  } catch {
    // Not JSON: a proxy's page, perhaps. The status says enough.
  }
  throw new ApiError(response.status, code, message);
}

/** Where a question is answered, for a link or a shell. */
export function address(path: string, query: Query): string {
  return BASE + path + queryString(query);
}

async function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  const response = await request(path + queryString(query), { signal, headers: { accept: 'application/json' } });
  return (await response.json()) as T;
}

export interface Scope {
  service: string[];
  instance: string[];
}

export interface Range {
  from: number;
  to: number;
}

export const api = {
  services: (range: Range) => get<Service[]>('/services', { ...range }),
  meters: (range: Range, scope: Scope, step: number, signal?: AbortSignal) =>
    get<Meters>('/meters', { ...range, ...scope, step }, signal),
  hitmap: (range: Range, scope: Scope, columns: number, signal?: AbortSignal) =>
    get<Hitmap>('/hitmap', { ...range, ...scope, columns }, signal),
  transactions: (query: Query, signal?: AbortSignal) => get<TransactionList>('/transactions', query, signal),
  transaction: (id: string, signal?: AbortSignal) => get<Profile>(`/transactions/${encodeURIComponent(id)}`, {}, signal),
  trace: (id: string, signal?: AbortSignal) => get<Trace>(`/traces/${encodeURIComponent(id)}`, {}, signal),
  active: (scope: Scope, signal?: AbortSignal) => get<Active>('/active', { ...scope }, signal),
  statistics: (kind: StatisticsKind, range: Range, scope: Scope, sort: string, limit: number, signal?: AbortSignal) =>
    get<Statistics>('/statistics', { kind, ...range, ...scope, sort, limit }, signal),
  lost: (range: Range, signal?: AbortSignal) => get<Lost>('/lost', { ...range }, signal),
  self: (signal?: AbortSignal) => get<Self>('/self', {}, signal),
  login: async (token: string): Promise<void> => {
    const headers = { 'content-type': 'application/json' };
    await request('/session', { method: 'POST', headers, body: JSON.stringify({ token }) });
  },
  logout: async (): Promise<void> => {
    await request('/session', { method: 'DELETE', headers: { 'content-type': 'application/json' } });
  },
};

export function liveStream(scope: Scope): EventSource {
  return new EventSource(BASE + '/live' + queryString({ ...scope }));
}
