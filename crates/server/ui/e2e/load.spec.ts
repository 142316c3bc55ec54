// A fleet of 200 instances with 1,000 transactions a second: the page stays small, whatever it has seen.

import { expect, test } from './page';

test.setTimeout(150_000);

interface Size {
  heap: number;
  nodes: number;
  listeners: number;
}

async function size(page: import('@playwright/test').Page): Promise<Size> {
  const session = await page.context().newCDPSession(page);
  for (let i = 0; i < 3; i += 1) await session.send('HeapProfiler.collectGarbage');
  const { usedSize } = await session.send('Runtime.getHeapUsage');
  const counters = await session.send('Memory.getDOMCounters');
  await session.detach();
  return { heap: usedSize, nodes: counters.nodes, listeners: counters.jsEventListeners };
}

test('half an hour of live figures leaves nothing behind', async ({ page, watched }) => {
  await watched.open('flood');
  const area = page.getByRole('application', { name: /Hitmap/ });
  const at = async () => Number(await area.getAttribute('data-from')) / 60_000_000;
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
  const begin = await at();
  const wait = (minutes: number) => expect.poll(at, { timeout: 100_000, intervals: [500] }).toBeGreaterThan(begin + minutes);
  await wait(8);
  const before = await size(page);
  await wait(30);
  const after = await size(page);
  expect(after.heap - before.heap, `${before.heap} → ${after.heap} bytes`).toBeLessThan(4_000_000);
  expect(after.nodes, 'nodes').toBeLessThan(before.nodes + 400);
  expect(after.listeners, 'listeners').toBeLessThan(before.listeners + 60);
});

test('a day with more than a million transactions is one picture', async ({ page, watched }) => {
  await watched.open('flood', '#/?r=24h');
  const counts = page.locator('.hitmap .counts');
  await expect(counts).toHaveText(/[\d,]{9,} transactions/);
  const area = page.getByRole('application', { name: /Hitmap/ });
  expect(Number(await area.getAttribute('data-columns'))).toBeLessThanOrEqual(120);
  expect(await page.locator('*').count()).toBeLessThan(2500);
  await area.focus();
  for (let i = 0; i < 10; i += 1) await page.keyboard.press('Shift+ArrowLeft');
  await expect(page.locator('.readout')).toContainText('transactions');
});

test('hundreds running are listed, the equalizer shows those in trouble first', async ({ page, watched }) => {
  await watched.open('flood');
  const bars = page.locator('.equalizer li');
  await expect(bars).toHaveCount(25);
  await expect(bars.first()).toContainText('1 very slow');
  await expect(bars.last()).toContainText('176 more');
  await page.goto(page.url().replace(/#.*/, '#/active'));
  await expect.poll(() => page.locator('li[data-id]').count()).toBeGreaterThan(100);
});
