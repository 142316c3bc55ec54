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
  // Keys do nothing as long as there is nothing to choose from.
  const when = page.locator('figure', { has: plot }).locator('.when');
  await expect(async () => {
    await page.keyboard.press('End');
    await expect(when).not.toBeEmpty({ timeout: 100 });
  }).toPass();
  for (let i = 0; i < 5; i += 1) await page.keyboard.press('Shift+ArrowLeft');
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(new RegExp(`from=${to - 6 * 5_000_000}&to=${to}`));
  await expect(status(page)).toContainText('transactions');
});

test.describe('on the hitmap', () => {
  /** An hour ago nothing changes any more, and there was a lock in it. */
  function withLock(): { from: number; to: number; lock: number } {
    const second = Math.floor(Date.now() / 1000) - 900;
    const lock = second - ((second - 200) % 240);
    return { from: (lock - 300) * 1e6 - ((lock * 1e6) % 5e6), to: (lock + 300) * 1e6 - ((lock * 1e6) % 5e6), lock };
  }

  test('a vertical line is found, and its button lists it', async ({ page, watched }) => {
    const { from, to, lock } = withLock();
    await watched.open('normal', `#/?from=${from}&to=${to}`);
    const chip = page.getByRole('list', { name: 'Shapes found' }).getByRole('button', { name: /ended together/ }).first();
    await expect(chip).toBeVisible();
    const said = (await chip.innerText()).match(/: ([\d,]+) ended/)![1]!;
    expect(Number(said)).toBeGreaterThan(10);
    await chip.click();
    await expect(status(page)).toContainText(`${said} transactions`);
    const params = new URLSearchParams(page.url().replace(/^.*\?/, ''));
    expect(Math.abs(Number(params.get('from')) / 1e6 - lock)).toBeLessThan(300);
    expect(Number(params.get('min_us'))).toBeGreaterThanOrEqual(1_000_000);
  });

  test('what stands out in a selection is named and leads to it', async ({ page, watched }) => {
    const { from, to } = withLock();
    await watched.open('normal', `#/?from=${from}&to=${to}`);
    await page.getByRole('list', { name: 'Shapes found' }).getByRole('button', { name: /ended together/ }).first().click();
    await page.getByRole('link', { name: 'What stands out' }).click();
    const panel = page.getByRole('region', { name: 'What stands out' });
    await expect(panel.getByRole('listitem').filter({ hasText: 'GET /orders/<int:id>' })).toContainText('instead of');
    await watched.accessible();
    await panel.getByRole('link', { name: 'GET /orders/<int:id>' }).click();
    await expect(page).toHaveURL(/name=%2Forders/);
    await expect(page.getByRole('row').nth(1)).toContainText('/orders/');
  });

  test('Ctrl and a drag mark what the next selection is compared with', async ({ page, watched }) => {
    const { from, to } = withLock();
    await watched.open('normal', `#/?from=${from}&to=${to}`);
    const area = page.getByRole('application', { name: /Hitmap/ });
    await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
    const box = (await area.boundingBox())!;
    const drag = async (x: number, width: number) => {
      await page.mouse.move(box.x + x, box.y + box.height - 24);
      await page.mouse.down();
      await page.mouse.move(box.x + x + width, box.y + box.height - 150, { steps: 4 });
      await page.mouse.up();
    };
    await page.keyboard.down('Control');
    await drag(80, 200);
    await page.keyboard.up('Control');
    await expect(page).toHaveURL(/vs=\d+-\d+-/);
    await expect(page.locator('.hitmap .selection.other')).toBeVisible();
    await drag(500, 150);
    await expect(page.getByRole('region', { name: 'What stands out' })).toContainText('listed ones against');
    await page.goBack();
    await page.getByRole('button', { name: /^Compared with/ }).click();
    await expect(page).not.toHaveURL(/vs=/);
  });

  test('time is moved with Shift, zoomed with Ctrl and the wheel, and a double click is live again', async ({ page, watched }) => {
    const { from, to } = withLock();
    await watched.open('normal', `#/?from=${from}&to=${to}`);
    const area = page.getByRole('application', { name: /Hitmap/ });
    await expect(area).toHaveAttribute('data-from', String(from));
    const box = (await area.boundingBox())!;
    const range = () => {
      const params = new URLSearchParams(page.url().replace(/^.*\?/, ''));
      return { from: Number(params.get('from')), to: Number(params.get('to')) };
    };
    await page.keyboard.down('Shift');
    await page.mouse.move(box.x + 500, box.y + 100);
    await page.mouse.down();
    await page.mouse.move(box.x + 300, box.y + 100, { steps: 4 });
    await page.mouse.up();
    await page.keyboard.up('Shift');
    await expect.poll(() => range().from).toBeGreaterThan(from);
    expect(range().to - range().from).toBe(to - from);
    // Without Ctrl the wheel belongs to the page.
    const before = range();
    await page.mouse.wheel(0, -50);
    await page.keyboard.down('Control');
    expect(range()).toEqual(before);
    await page.mouse.wheel(0, -50);
    await expect.poll(() => range().to - range().from).toBeLessThan(to - from);
    await page.waitForTimeout(300);
    const closer = range();
    await page.mouse.wheel(0, 50);
    await page.keyboard.up('Control');
    await expect.poll(() => range().to - range().from).toBeGreaterThan(closer.to - closer.from);
    // Two hours ago there was nothing.
    await page.goto(page.url().replace(/#.*/, `#/?from=${from - 7_200_000_000}&to=${to - 7_200_000_000}`));
    await expect(page.locator('.hitmap .counts')).toHaveText(/^0 /);
    await area.dblclick({ position: { x: 400, y: 150 } });
    await expect(page).not.toHaveURL(/from=/);
  });
});
