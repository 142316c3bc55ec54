// The same page on the real server. Runs when there is one: $WHATAP_SERVER_BIN, else what cargo built last.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { feed } from '../dev/feed.mjs';
import type { TransactionList } from '../src/api/types';
import { ask, expect, test as base } from './page';

const TARGET = process.env['CARGO_TARGET_DIR'] ?? '../../../target';
const BUILT = ['release', 'debug'].map((profile) => join(TARGET, profile, 'whatap-server')).filter(existsSync);
BUILT.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
const BINARY = process.env['WHATAP_SERVER_BIN'] ?? BUILT[0];

interface Running {
  url: string;
  token: string;
  sent: number;
}

const test = base.extend<object, { server: Running }>({
  server: [
    async ({}, use) => {
      const data = mkdtempSync(join(tmpdir(), 'whatap-ui-'));
      const child = spawn(BINARY!, ['--data-dir', data, '--listen-agents', '127.0.0.1:0', '--listen-http', '127.0.0.1:0'], { stdio: 'ignore' });
      try {
        const file = join(data, 'server.json');
        for (let i = 0; !existsSync(file) && i < 200; i += 1) await new Promise((resolve) => setTimeout(resolve, 50));
        const { url, agents, token } = JSON.parse(readFileSync(file, 'utf8')) as { url: string; agents: string; token: string };
        const licence = readFileSync(join(data, 'licence'), 'utf8').trim();
        const { count } = await feed({ agents: `http://${agents}`, licence }, { minutes: 5 });
        await use({ url: url.replace(/\/$/, ''), token, sent: count });
      } finally {
        const ended = once(child, 'exit');
        child.kill();
        await ended;
        rmSync(data, { recursive: true, force: true });
      }
    },
    { scope: 'worker', timeout: 60_000 },
  ],
});

test.skip(!BINARY, 'whatap-server is not built');
test.describe.configure({ mode: 'serial' });

test.beforeEach(async ({ page, server }) => {
  await page.goto(`${server.url}/`);
  await page.evaluate((token) => fetch('/api/v1/session', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ token }) }), server.token);
  await page.goto('about:blank');
});

test('a stranger sees the login and nothing else', async ({ page, watched, server }) => {
  watched.expected.push(/401/);
  await page.context().clearCookies();
  await page.goto(`${server.url}/#/transactions`);
  await page.locator('#token').fill('0'.repeat(64));
  await page.keyboard.press('Enter');
  await expect(page.getByRole('alert')).toBeVisible();
  await page.locator('#token').fill(server.token);
  await page.keyboard.press('Enter');
  await expect(page.getByRole('grid')).toBeVisible();
});

test('every view shows what was sent', async ({ page, watched, server }) => {
  watched.expected.push(/401/);
  await page.goto(`${server.url}/#/?r=1h`);
  await expect(page.locator('.hitmap .counts')).toContainText(server.sent.toLocaleString('en'));
  await expect(page.locator('.running .centre b')).toHaveText(/^\d/);
  await watched.accessible();
  for (const hash of ['#/transactions', '#/active', '#/statistics', '#/statistics?kind=sql', '#/statistics?kind=http', '#/statistics?kind=error', '#/instances']) {
    await page.goto(`${server.url}/${hash}`);
    await watched.settled();
    await watched.accessible();
  }
  await expect(page.getByRole('region', { name: 'Instances' })).toContainText('shop-web-1');
});

test('a rectangle on the hitmap lists exactly what it holds', async ({ page, watched, server }) => {
  watched.expected.push(/401/);
  const column = 5_000_000;
  const to = Math.floor((Date.now() * 1000) / column) * column;
  await page.goto(`${server.url}/#/?from=${to - 600_000_000}&to=${to}&y=20`);
  const area = page.getByRole('application', { name: /Hitmap/ });
  const box = (await area.boundingBox())!;
  for (const [x, y, width, height] of [[560, 24, 180, 90], [520, 40, 320, 240], [60, 24, 800, 12]] as const) {
    await expect(page.locator('.hitmap .counts')).toHaveText(/^[1-9]/);
    await page.mouse.move(box.x + x, box.y + box.height - y);
    await page.mouse.down();
    await page.mouse.move(box.x + x + width, box.y + box.height - y - height, { steps: 5 });
    const said = (await page.locator('.readout').innerText()).match(/([\d,]+) transactions?/)![1]!;
    await page.mouse.up();
    await expect(page.locator('.page-head [role=status]')).toContainText(`${said} transactions`);
    const list = await ask<TransactionList>(page, `/transactions?${page.url().replace(/^.*\?/, '')}&limit=1`);
    expect(list.total.toLocaleString('en')).toBe(said);
    await page.goBack();
    await expect(page.locator('.hitmap .selection')).toBeVisible();
  }
});

test('a failed transaction tells its stack, a slow one its statements and its trace', async ({ page, watched, server }) => {
  watched.expected.push(/401/);
  await page.goto(`${server.url}/#/transactions?error=shop.errors.CardRefused&r=1h`);
  await page.getByRole('grid').focus();
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('tabpanel')).toContainText('raise CardRefused(answer["reason"]) from error');
  for (const tab of ['table', 'waterfall', 'sql', 'http', 'trace', 'logs', 'properties']) {
    await page.locator(`#tab-${tab}`).click();
    await watched.settled();
    await watched.accessible();
  }
  await page.goto(`${server.url}/#/transactions?name=%2Forders%2F%3Cint%3Aid%3E&r=1h&min_us=50000&max_us=300000`);
  await page.getByRole('grid').focus();
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.getByRole('tab', { name: /SQL/ }).click();
  await expect(page.getByRole('note')).toContainText('12 times in a row');
});
