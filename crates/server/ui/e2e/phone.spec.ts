import type { TransactionList } from '../src/api/types';
import { ask, expect, test } from './page';

test.use({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });

for (const locale of ['en-US', 'ko-KR', 'zh-CN', 'ja-JP'] as const) {
  test.describe(locale, () => {
    test.use({ locale });
    for (const mode of ['normal', 'hostile'] as const) {
      test(`nothing is wider than a phone (${mode})`, async ({ page, watched }) => {
        await watched.open(mode);
        const list = await ask<TransactionList>(page, '/transactions?error=any&limit=1');
        const id = list.rows[0]!.id;
        const hashes = [
          '#/', '#/transactions', '#/transactions?error=any&name=%2Fpay&min_us=1000', '#/active', '#/statistics?kind=sql', '#/statistics?kind=error', '#/instances',
          ...['waterfall', 'table', 'sql', 'error', 'trace', 'logs', 'properties'].map((tab) => `#/transaction/${id}?tab=${tab}`),
        ];
        for (const hash of hashes) {
          await page.goto(page.url().replace(/#.*/, hash));
          await watched.settled();
          expect(await page.evaluate(() => document.documentElement.scrollWidth), hash).toBeLessThanOrEqual(390);
        }
      });
    }
  });
}

for (const colorScheme of ['light', 'dark'] as const) {
  test.describe(colorScheme, () => {
    test.use({ colorScheme });
    test('every view on a phone passes the rules of accessibility', async ({ page, watched }) => {
      await watched.open('normal');
      const list = await ask<TransactionList>(page, '/transactions?error=any&limit=1');
      const id = list.rows[0]!.id;
      for (const hash of ['#/', '#/transactions', '#/active', '#/statistics?kind=sql', '#/instances', `#/transaction/${id}?tab=waterfall`, `#/transaction/${id}?tab=error`]) {
        await page.goto(page.url().replace(/#.*/, hash));
        await watched.settled();
        await watched.accessible();
      }
    });
  });
}

test('a finger draws a rectangle over the hitmap', async ({ page, watched }) => {
  await watched.open('normal');
  const area = page.getByRole('application', { name: /Hitmap/ });
  await area.scrollIntoViewIfNeeded();
  await page.waitForFunction(() => !/^$|: 0 trans/.test(document.querySelector('[role=application]')?.getAttribute('aria-label') ?? ''));
  const box = (await area.boundingBox())!;
  const session = await page.context().newCDPSession(page);
  const touch = (type: 'touchStart' | 'touchMove' | 'touchEnd', x: number, y: number) =>
    session.send('Input.dispatchTouchEvent', { type, touchPoints: type === 'touchEnd' ? [] : [{ x, y }] });
  const y = box.y + box.height - 30;
  await touch('touchStart', box.x + 120, y);
  for (let i = 1; i <= 12; i += 1) await touch('touchMove', box.x + 120 + i * 14, y - i);
  await touch('touchEnd', 0, 0);
  await expect(page).toHaveURL(/#\/transactions\?.*from=/);
});
