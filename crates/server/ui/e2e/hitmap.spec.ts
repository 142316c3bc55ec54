import type { Hitmap, TransactionList } from '../src/api/types';
import { ask, expect, pastRange, test } from './page';

/** What the API says about the parameters in the address bar. */
async function listed(page: import('@playwright/test').Page): Promise<TransactionList> {
  const query = page.url().replace(/^.*\?/, '');
  return ask<TransactionList>(page, `/transactions?${query}&limit=1`);
}

function status(page: import('@playwright/test').Page) {
  return page.locator('.page-head [role=status]');
}

test.describe('a rectangle', () => {
  for (const zoom of [5, 20, 80]) {
    test(`drawn with the pointer lists exactly what it holds (${zoom} s)`, async ({ page, watched }) => {
      const { from, to } = pastRange();
      await watched.open('normal', `#/?from=${from}&to=${to}&y=${zoom}`);
      const area = page.getByRole('application', { name: /Hitmap/ });
      await expect(area).toHaveAttribute('data-from', String(from));
      const box = (await area.boundingBox())!;
      await page.mouse.move(box.x + 300, box.y + box.height - 24);
      await page.mouse.down();
      await page.mouse.move(box.x + 500, box.y + box.height - 120, { steps: 6 });
      const said = (await page.locator('.readout').innerText()).match(/([\d,]+) transactions?/)![1]!;
      await page.mouse.up();
      await expect(page).toHaveURL(/#\/transactions\?/);
      await expect(status(page)).toContainText(`${said} transactions`);
      const answer = await listed(page);
      expect(answer.total.toLocaleString('en')).toBe(said);
      // The same once more from the cells: every one of them is whole inside or outside of the rectangle.
      const params = new URLSearchParams(page.url().replace(/^.*\?/, ''));
      const hitmap = await ask<Hitmap>(page, `/hitmap?from=${params.get('from')}&to=${params.get('to')}&columns=120`);
      const min = Number(params.get('min_us') ?? 0);
      const max = params.has('max_us') ? Number(params.get('max_us')) + 1 : Infinity;
      const inside = hitmap.cells.filter(([, level]) => (level === 0 ? 0 : hitmap.levels[level - 1]!) >= min && (hitmap.levels[level]! || Infinity) <= max);
      expect(inside.reduce((sum, [, , hit, error]) => sum + hit + error, 0)).toBe(answer.total);
    });
  }

  test('chosen with the keyboard lists exactly what it holds', async ({ page, watched }) => {
    const { from, to } = pastRange();
    await watched.open('normal', `#/?from=${from}&to=${to}`);
    const area = page.getByRole('application', { name: /Hitmap/ });
    await expect(area).toHaveAttribute('data-from', String(from));
    await area.focus();
    await page.keyboard.press('ArrowRight');
    for (let i = 0; i < 30; i += 1) await page.keyboard.press('Shift+ArrowLeft');
    for (let i = 0; i < 6; i += 1) await page.keyboard.press('Shift+ArrowUp');
    const said = (await page.locator('.readout').innerText()).match(/([\d,]+) transactions?/)![1]!;
    await page.keyboard.press('Enter');
    await expect(page).toHaveURL(/#\/transactions\?/);
    await expect(status(page)).toContainText(`${said} transactions`);
    expect((await listed(page)).total.toLocaleString('en')).toBe(said);
  });

  test('is still there after back', async ({ page, watched }) => {
    await watched.open('normal');
    const area = page.getByRole('application', { name: /Hitmap/ });
    await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
    const box = (await area.boundingBox())!;
    await page.mouse.move(box.x + 400, box.y + box.height - 24);
    await page.mouse.down();
    await page.mouse.move(box.x + 600, box.y + box.height - 100, { steps: 4 });
    await page.mouse.up();
    await expect(page).toHaveURL(/#\/transactions\?/);
    await page.goBack();
    await expect(page.locator('.hitmap .selection')).toBeVisible();
    await page.getByRole('button', { name: /Live/ }).click();
    await expect(page.locator('.hitmap .selection')).toHaveCount(0);
  });
});

test('errors only leaves out the rest, also in the list', async ({ page, watched }) => {
  const { from, to } = pastRange();
  await watched.open('normal', `#/?from=${from}&to=${to}&y=20`);
  const area = page.getByRole('application', { name: /Hitmap/ });
  await area.focus();
  await page.keyboard.press('e');
  await expect(page).toHaveURL(/errors=1/);
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
  const box = (await area.boundingBox())!;
  await page.mouse.move(box.x + 60, box.y + box.height - 24);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width - 8, box.y + 8, { steps: 4 });
  await page.mouse.up();
  await expect(page).toHaveURL(/error=any/);
  await expect(status(page)).toBeVisible();
  const answer = await listed(page);
  expect(answer.total).toBe(answer.total_error);
  expect(answer.total).toBeGreaterThan(0);
});

test('a chart lists the range that is drawn over it', async ({ page, watched }) => {
  const { from, to } = pastRange();
  await watched.open('normal', `#/?from=${from}&to=${to}`);
  const plot = page.getByRole('application', { name: /Throughput per second/ });
  await plot.scrollIntoViewIfNeeded();
  await plot.focus();
  await page.keyboard.press('ArrowLeft');
  for (let i = 0; i < 5; i += 1) await page.keyboard.press('Shift+ArrowLeft');
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(new RegExp(`from=${to - 6 * 5_000_000}&to=${to}`));
  await expect(status(page)).toContainText('transactions');
});
