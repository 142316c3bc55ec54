import { expect, test } from './page';
import type { TransactionList } from '../src/api/types';
import { ask } from './page';

const VIEWS = [
  ['home', '#/'], ['transactions', '#/transactions'], ['running', '#/active'], ['statistics', '#/statistics'], ['sql', '#/statistics?kind=sql'],
  ['calls', '#/statistics?kind=http'], ['errors', '#/statistics?kind=error'], ['instances', '#/instances'],
] as const;
const TABS = ['table', 'waterfall', 'sql', 'http', 'error', 'trace', 'logs', 'properties'] as const;

for (const theme of ['light', 'dark'] as const) {
  for (const locale of theme === 'light' ? (['en-US', 'ko-KR', 'zh-CN'] as const) : (['en-US', 'ko-KR', 'ja-JP'] as const)) {
    test.describe(`${theme}, ${locale}`, () => {
      test.use({ colorScheme: theme, locale });

      for (const [name, hash] of VIEWS) {
        test(`${name} shows itself without complaint`, async ({ page, watched }) => {
          await watched.open('normal', hash);
          await watched.settled();
          await expect(page.locator('html')).toHaveAttribute('data-theme', theme);
          await expect(page.locator('html')).toHaveAttribute('lang', locale.slice(0, 2));
          await watched.accessible();
        });
      }

      test('every tab of a failed transaction shows itself without complaint', async ({ page, watched }) => {
        await watched.open('normal');
        const list = await ask<TransactionList>(page, '/transactions?error=shop.errors.CardRefused&limit=1');
        for (const tab of TABS) {
          await page.goto(page.url().replace(/#.*/, `#/transaction/${list.rows[0]!.id}?tab=${tab}`));
          await watched.settled();
          await expect(page.locator(`#tab-${tab}`)).toHaveAttribute('aria-selected', 'true');
          await watched.accessible();
        }
      });

      test('an empty server says what to type', async ({ page, watched }) => {
        await watched.open('empty');
        await expect(page.locator('pre')).toContainText('whatap-start-agent gunicorn myapp.wsgi');
        await watched.accessible();
        await page.getByRole('tab', { name: 'OpenTelemetry' }).click();
        await expect(page.locator('pre')).toContainText(`OTEL_EXPORTER_OTLP_ENDPOINT=${new URL(page.url()).origin}`);
      });

      test('a server that wants a login says how', async ({ page, watched }) => {
        watched.expected.push(/401/);
        await watched.open('locked');
        await expect(page.locator('#token')).toBeVisible();
        await watched.accessible();
        await page.locator('#token').fill('not this one');
        await page.keyboard.press('Enter');
        await expect(page.getByRole('alert')).toBeVisible();
        await page.locator('#token').fill('secret-token');
        await page.keyboard.press('Enter');
        await expect(page.getByRole('application').first()).toBeVisible();
      });
    });
  }
}

test('the switches win over the system, and are remembered', async ({ page, watched }) => {
  await watched.open('normal');
  await page.getByRole('button', { name: 'Settings' }).click();
  await page.getByRole('button', { name: 'Dark' }).click();
  await page.getByRole('button', { name: '한국어' }).click();
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
  await expect(page.getByRole('link', { name: '트랜잭션', exact: true })).toBeVisible();
  await page.reload();
  await expect(page.locator('html')).toHaveAttribute('lang', 'ko');
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
});
