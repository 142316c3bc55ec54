import type { TransactionList } from '../src/api/types';
import { ask, expect, test } from './page';

test('what agents send stays text in every view', async ({ page, watched }) => {
  await watched.open('hostile');
  const list = await ask<TransactionList>(page, '/transactions?error=any&limit=1');
  expect(list.rows[0]!.name).toContain('<script>');
  const id = list.rows[0]!.id;
  const hashes = [
    '#/', '#/transactions', '#/transactions?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E', '#/active', '#/statistics', '#/statistics?kind=sql', '#/statistics?kind=http',
    '#/statistics?kind=error', '#/instances', `#/?service=${encodeURIComponent(list.rows[0]!.service)}`,
    ...['table', 'waterfall', 'sql', 'http', 'error', 'trace', 'logs', 'properties'].map((tab) => `#/transaction/${id}?tab=${tab}`),
  ];
  for (const hash of hashes) {
    await page.goto(page.url().replace(/#.*/, hash));
    await watched.settled();
    const found = await page.evaluate(() => ({
      pwned: window.pwned,
      images: [...document.images].map((image) => image.getAttribute('src')).filter((src) => !src?.startsWith('/')),
      scripts: [...document.scripts].filter((script) => !script.src).length,
      links: [...document.links].map((link) => link.protocol).filter((protocol) => !['http:', 'https:', 'blob:'].includes(protocol)),
    }));
    expect(found, hash).toEqual({ pwned: undefined, images: [], scripts: 0, links: [] });
  }
  // And it is shown, not swallowed.
  await page.goto(page.url().replace(/#.*/, `#/transaction/${id}`));
  await expect(page.locator('h1')).toContainText('<img src=x onerror="window.pwned=1">');
});
