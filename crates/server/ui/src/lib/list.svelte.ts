// The transaction list that is open, kept while a profile is looked at, so that next and previous work.

import { api, queryString, type Query } from '../api/client';
import type { Group, Transaction } from '../api/types';

const PAGE = 200;
/** No list goes further; the true total is shown beside it. */
export const LIST_LIMIT = 1000;

class TransactionRows {
  rows = $state.raw<(Transaction | undefined)[]>([]);
  groups = $state.raw<Group[]>([]);
  total = $state(0);
  totalError = $state(0);
  totalProfile = $state(0);
  loaded = $state(false);
  error = $state<string | null>(null);
  /** The place that shows this list, for the way back. */
  hash = $state('');
  /** The transaction that was opened last: the way back leads to its row. */
  opened = '';

  private query: Query = {};
  private key = '';
  private pages = new Set<number>();
  private controller = new AbortController();

  /** Loads a list unless it is the one that is already here. */
  async open(query: Query, hash: string, again = false): Promise<void> {
    this.hash = hash;
    const key = queryString(query);
    if (key === this.key && !again) return;
    if (key !== this.key) this.loaded = false;
    this.key = key;
    this.query = query;
    this.controller.abort();
    this.controller = new AbortController();
    const { signal } = this.controller;
    try {
      const list = await api.transactions({ ...query, limit: PAGE, offset: 0 }, signal);
      this.pages = new Set([0]);
      this.total = list.total;
      this.totalError = list.total_error;
      this.totalProfile = list.total_profile;
      this.groups = list.groups;
      this.rows = Object.assign(new Array<Transaction | undefined>(Math.min(list.total, LIST_LIMIT)).fill(undefined), list.rows);
      this.error = null;
      this.loaded = true;
    } catch (error) {
      if (!signal.aborted) {
        this.key = '';
        this.error = error instanceof Error ? error.message : String(error);
      }
    }
  }

  /** Fetches the pages that hold these rows. */
  view(first: number, last: number): void {
    for (let page = Math.floor(first / PAGE); page * PAGE < Math.min(last, this.rows.length); page += 1) void this.fetchPage(page);
  }

  /** The transaction before or after one in the list. */
  neighbour(id: string, by: 1 | -1): Transaction | null {
    const index = this.rows.findIndex((row) => row?.id === id);
    if (index < 0) return null;
    this.view(index, index + 2);
    return this.rows[index + by] ?? null;
  }

  position(id: string): number {
    return this.rows.findIndex((row) => row?.id === id);
  }

  private async fetchPage(page: number): Promise<void> {
    if (this.pages.has(page)) return;
    this.pages.add(page);
    const { signal } = this.controller;
    try {
      const list = await api.transactions({ ...this.query, limit: Math.min(PAGE, LIST_LIMIT - page * PAGE), offset: page * PAGE }, signal);
      const rows = [...this.rows];
      list.rows.forEach((row, i) => {
        if (page * PAGE + i < rows.length) rows[page * PAGE + i] = row;
      });
      this.rows = rows;
    } catch {
      this.pages.delete(page);
    }
  }
}

export const list = new TransactionRows();
