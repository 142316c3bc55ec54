// A page that writes down what must not happen: errors, refused content, requests to other hosts.

import { test as base, expect, type Page } from '@playwright/test';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { urlOf, type Mode } from './servers';

declare global {
  interface Window {
    violations: string[];
    /** What moved by itself. */
    shifts: string[];
    pwned?: number;
    axe: { run: (options: unknown) => Promise<{ violations: { id: string; help: string; nodes: { html: string; failureSummary?: string }[] }[] }> };
  }
}

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export class Watched {
  readonly problems: string[] = [];
  /** Messages of the browser that belong to what a test does. */
  readonly expected: RegExp[] = [];

  constructor(readonly page: Page) {}

  async begin(): Promise<void> {
    this.page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.problems.push(`console: ${message.text()}`);
    });
    this.page.on('pageerror', (error) => this.problems.push(`error: ${error.message}`));
    this.page.on('request', (request) => {
      if (!/^(http:\/\/127\.0\.0\.1:|data:|blob:)/.test(request.url())) this.problems.push(`request to ${request.url()}`);
    });
    await this.page.addInitScript(() => {
      window.violations = [];
      document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
    });
  }

  async open(mode: Mode, hash = '#/'): Promise<void> {
    await this.page.goto(`${urlOf(mode)}/${hash}`);
    await expect(this.page.locator('main')).toBeVisible();
  }

  /** Waits until a view has its data. */
  async settled(): Promise<void> {
    await expect(this.page.locator('main h1').first()).toBeAttached();
    await expect(this.page.locator('main .card').first()).toBeVisible();
    await this.page.waitForFunction(() => ![...document.querySelectorAll('main .empty')].some((one) => /Loading|불러오는|加载中|読み込み中/.test(one.textContent ?? '')));
  }

  async clean(): Promise<void> {
    const violations = await this.page.evaluate(() => window.violations);
    const unexpected = this.problems.filter((problem) => !this.expected.some((one) => one.test(problem)));
    expect([...unexpected, ...violations]).toEqual([]);
  }

  async accessible(): Promise<void> {
    await this.page.evaluate(AXE);
    const found = await this.page.evaluate(async () => {
      const result = await window.axe.run({ resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] });
      return result.violations.map((one) => `${one.id}: ${one.help}\n  ${one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 200)} ${node.failureSummary ?? ''}`).join('\n  ')}`);
    });
    expect(found).toEqual([]);
  }
}

export const test = base.extend<{ watched: Watched }>({
  watched: async ({ page }, use) => {
    const watched = new Watched(page);
    await watched.begin();
    await use(watched);
    await watched.clean();
  },
});

export { expect };

export async function ask<T>(page: Page, path: string): Promise<T> {
  return page.evaluate(async (url) => (await fetch(`/api/v1${url}`)).json() as Promise<T>, path);
}

/** Ten whole minutes that have passed: what they hold does not change any more. */
export function pastRange(): { from: number; to: number } {
  const column = 5_000_000;
  const to = Math.floor((Date.now() * 1000) / column) * column - 60_000_000;
  return { from: to - 600_000_000, to };
}
