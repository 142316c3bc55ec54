import { readFileSync } from 'node:fs';
import type { Active, TransactionList } from '../src/api/types';
import { ask, expect, pastRange, test } from './page';
import { startServer } from './servers';

test.describe('from the home page', () => {
  test('the query that takes most of the time is one click away, and laid out to be read', async ({ page, watched }) => {
    await watched.open('normal');
    await page.getByRole('region', { name: 'Where the time goes: SQL' }).getByRole('link').nth(1).click();
    const row = page.locator('tbody tr.open');
    await expect(row.locator('code')).toContainText(/SELECT/);
    await expect(row).toContainText('%');
    await expect(row.getByRole('button', { name: 'Copy' })).toBeVisible();
  });

  test('the slowest single query is two clicks away', async ({ page, watched }) => {
    await watched.open('normal');
    await page.getByRole('region', { name: 'Where the time goes: SQL' }).getByRole('link', { name: 'All' }).click();
    await page.getByRole('button', { name: 'Max' }).click();
    await expect(page).toHaveURL(/kind=sql&sort=max|sort=max&kind=sql/);
    await expect(page.locator('tbody tr').first().getByRole('link', { name: 'Open' })).toBeVisible();
  });

  test('why requests fail is two clicks away: error, stack, cause and the line of code', async ({ page, watched }) => {
    await watched.open('normal');
    await page.getByRole('link', { name: /^Error rate/ }).click();
    await page.getByRole('row', { name: /CardRefused/ }).getByRole('link', { name: 'Open' }).click();
    const panel = page.getByRole('tabpanel');
    await expect(panel).toContainText('raise CardRefused(answer["reason"]) from error');
    await expect(panel).toContainText('Caused by');
    await expect(panel).toContainText('RemoteDisconnected');
    // The application's own calls first; those of libraries when asked for.
    await expect(panel).not.toContainText('site-packages');
    await panel.getByRole('button', { name: 'Show 1 library frame' }).click();
    await expect(panel).toContainText('site-packages');
  });

  test('what a killed worker was doing is two clicks away', async ({ page, watched }) => {
    await watched.open('normal', '#/?r=1h');
    await page.getByRole('link', { name: /^Aborted/ }).click();
    const row = page.getByRole('row').filter({ hasText: '/report' }).first();
    await expect(row).toContainText('aborted');
    await row.getByRole('link').click();
    const note = page.getByRole('note');
    await expect(note).toContainText('process died');
    await expect(note).toContainText('It was in: SQL, for');
    await expect(note).toContainText("SELECT date_trunc('day', o.created)");
    await watched.accessible();
    await note.getByRole('link', { name: 'All that died then' }).click();
    await expect(page).toHaveURL(/aborted=true/);
    await expect(page.getByRole('row').filter({ hasText: '/report' }).first()).toBeVisible();
  });
});

test('what changed against the range before is one click on each statistics page', async ({ page, watched }) => {
  const { from, to } = pastRange();
  for (const kind of ['transaction', 'sql', 'error']) {
    await watched.open('normal', `#/statistics?kind=${kind}&from=${from}&to=${to}`);
    await page.getByRole('link', { name: 'Compare with before' }).click();
    await expect(page.getByRole('columnheader', { name: 'Change' })).toHaveAttribute('aria-sort', 'descending');
    const cells = page.locator('td.change b');
    await expect(cells.first()).toHaveText(/^[+−±]/);
    await expect(page.locator('td.change').filter({ hasText: 'was ' }).first()).toBeVisible();
    await watched.accessible();
  }
  await page.getByRole('button', { name: 'Count' }).click();
  await expect(page.getByRole('columnheader', { name: 'Change' })).toHaveCount(0);
});

test('a stack that was taken on the way shows the application’s own call', async ({ page, watched }) => {
  await watched.open('normal', '#/transactions?name=%2Freport&aborted=false&r=1h');
  await page.getByRole('row').nth(1).getByRole('link').click();
  await page.locator('#tab-table').click();
  const step = page.getByRole('row').filter({ hasText: 'report · /srv/shop/shop/views.py:41' });
  await step.click();
  const detail = page.getByRole('complementary');
  await expect(detail).toContainText('rows = revenue_by_day(month)');
  await expect(detail).not.toContainText('psycopg');
  await detail.getByRole('button', { name: 'Show 2 library frames' }).click();
  await expect(detail).toContainText('psycopg');
  await watched.accessible();
});

test('a link to this moment shows the same to somebody else', async ({ page, watched, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await watched.open('normal', '#/?p=p99&service=shop');
  await page.getByRole('button', { name: 'Time range' }).click();
  await page.getByRole('button', { name: 'Copy a link to this moment' }).click();
  await expect(page.getByRole('dialog').getByRole('status')).toHaveText('Copied');
  const link = await page.evaluate(() => navigator.clipboard.readText());
  expect(link).toMatch(/#\/\?(?=.*p=p99)(?=.*service=shop)(?=.*from=\d+)(?=.*to=\d+)/);
  await page.goto('about:blank');
  await page.goto(link);
  await expect(page.getByRole('button', { name: 'p99' })).toHaveAttribute('aria-pressed', 'true');
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
});

test('a range in which nothing reported leads to the last that did', async ({ page, watched }) => {
  const now = Date.now() * 1000;
  // The stand-in knows its services at any time; here it forgets them in the distant past.
  await page.route('**/api/v1/services?*', async (route) => {
    const to = Number(new URL(route.request().url()).searchParams.get('to'));
    if (to < now - 3_600_000_000) await route.fulfill({ json: [] });
    else await route.continue();
  });
  await watched.open('normal', `#/?from=${now - 86_400_000_000}&to=${now - 85_800_000_000}`);
  const hint = page.getByRole('status').filter({ hasText: 'Nothing reported in this range' });
  await expect(hint).toContainText('whatap-doctor');
  await hint.getByRole('link', { name: 'Show that time' }).click();
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
  await expect(hint).toHaveCount(0);
});

test('repeated statements are named, and the trace goes over both services', async ({ page, watched }) => {
  const { from, to } = pastRange();
  await watched.open('normal', `#/transactions?from=${from}&to=${to}&name=%2Forders%2F%3Cint%3Aid%3E&max_us=900000&min_us=100000`);
  await page.getByRole('grid').focus();
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.getByRole('tab', { name: /SQL/ }).click();
  await expect(page.getByRole('note')).toContainText('12 times in a row');
  await page.getByRole('tab', { name: 'Trace' }).click();
  await expect(page.getByRole('tabpanel')).toContainText('2 transactions');
  await expect(page.getByRole('tabpanel')).toContainText('stock · GET /stock/<sku>');
});

test('j and k walk through the list, in the list and in a profile', async ({ page, watched }) => {
  const { from, to } = pastRange();
  await watched.open('normal', `#/transactions?from=${from}&to=${to}&sort=elapsed`);
  const list = await ask<TransactionList>(page, `/transactions?from=${from}&to=${to}&sort=elapsed&limit=5`);
  await page.getByRole('grid').focus();
  for (const key of ['j', 'j', 'k', 'Enter']) await page.keyboard.press(key);
  await expect(page).toHaveURL(new RegExp(list.rows[0]!.id));
  await page.keyboard.press('j');
  await expect(page).toHaveURL(new RegExp(list.rows[1]!.id));
  await expect(page.getByText('2 of ')).toBeVisible();
  await page.keyboard.press('k');
  await expect(page).toHaveURL(new RegExp(list.rows[0]!.id));
  await page.goBack();
  await expect(page.getByRole('grid')).toBeVisible();
});

test('back from a profile leads to its row', async ({ page, watched }) => {
  const { from, to } = pastRange();
  await watched.open('normal', `#/transactions?from=${from}&to=${to}`);
  const grid = page.getByRole('grid');
  await grid.focus();
  for (let i = 0; i < 40; i += 1) await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await expect(page.getByText('40 of ')).toBeVisible();
  await page.keyboard.press('j');
  await page.goBack();
  await expect(page.locator('#tx-40')).toHaveAttribute('aria-selected', 'true');
  await expect(page.locator('#tx-40')).toBeInViewport();
});

test('filters are chips in the address bar, and back undoes them', async ({ page, watched }) => {
  await watched.open('normal', '#/transactions');
  await page.getByLabel('Status').selectOption('5xx');
  await expect(page).toHaveURL(/status=5xx/);
  await page.locator('.groups a').first().click();
  await expect(page.locator('.chip')).toHaveCount(3);
  await page.getByRole('button', { name: /Remove the filter Status/ }).click();
  await expect(page).not.toHaveURL(/status=/);
  await page.goBack();
  await expect(page.locator('.chip')).toHaveCount(3);
});

test('a thousand rows scroll, of which few are in the page', async ({ page, watched }) => {
  await watched.open('normal', '#/transactions');
  const grid = page.getByRole('grid');
  await expect(grid).toHaveAttribute('aria-rowcount', '1001');
  await grid.focus();
  await page.keyboard.press('End');
  await expect(page.locator('#tx-999')).toContainText(/ms|s/);
  expect(await page.locator('[role=row]').count()).toBeLessThan(80);
});

test('CSV has no cell that a spreadsheet would run', async ({ page, watched }) => {
  await watched.open('normal', '#/transactions');
  await expect(page.getByRole('grid')).toBeVisible();
  const waiting = page.waitForEvent('download');
  await page.getByRole('button', { name: 'CSV' }).click();
  const text = readFileSync((await (await waiting).path())!, 'utf8');
  const lines = text.replace('\ufeff', '').trim().split('\r\n');
  expect(lines[0]).toContain('elapsed_us');
  expect(lines.length).toBeGreaterThan(100);
  expect(lines.flatMap((line) => line.split(',')).filter((cell) => /^"?[=+@\t]/.test(cell))).toEqual([]);
});

test('running transactions: the longest on top, nothing jumps under the pointer', async ({ page, watched }) => {
  await watched.open('normal', '#/active');
  const ids = () => page.locator('li[data-id]').evaluateAll((rows) => rows.map((row) => (row as HTMLElement).dataset['id']!));
  await expect.poll(async () => (await ids()).length, { timeout: 30_000 }).toBeGreaterThan(2);
  await page.locator('li[data-id]').first().hover();
  const before = await ids();
  await page.waitForTimeout(3500);
  const after = await ids();
  expect(after.slice(0, before.length)).toEqual(before);
  await page.mouse.move(5, 5);
  const active = await ask<Active>(page, '/active');
  expect([...active.rows].sort((a, b) => b.elapsed_us - a.elapsed_us)).toEqual(active.rows);
});

test('scope and time are in the address bar and hold on every view', async ({ page, watched }) => {
  await watched.open('normal');
  await page.getByRole('button', { name: 'Services and instances' }).click();
  await page.getByLabel('stock', { exact: true }).check();
  await page.keyboard.press('Escape');
  await expect(page).toHaveURL(/service=stock/);
  await page.getByRole('button', { name: 'Time range' }).click();
  await page.getByRole('button', { name: 'Last hour' }).click();
  await page.getByRole('link', { name: 'Transactions', exact: true }).click();
  await expect(page).toHaveURL(/transactions\?(.*service=stock.*r=1h|.*r=1h.*service=stock)/);
  await expect(page.getByRole('row').filter({ hasText: '/orders' })).toHaveCount(0);
});

test('space pauses, and one click goes back to live', async ({ page, watched }) => {
  await watched.open('normal');
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
  await page.keyboard.press(' ');
  await expect(page).toHaveURL(/from=\d+&to=\d+/);
  await page.getByRole('button', { name: 'Live' }).click();
  await expect(page).not.toHaveURL(/from=/);
});

test('the number keys change views and ? explains', async ({ page, watched }) => {
  await watched.open('normal');
  await page.keyboard.press('4');
  await expect(page.getByRole('heading', { name: 'Statistics' })).toBeVisible();
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog')).toContainText('Select a range');
  await page.keyboard.press('Escape');
  await page.keyboard.press('1');
  await expect(page).toHaveURL(/#\/$/);
});

test('live figures move by themselves', async ({ page, watched }) => {
  await watched.open('normal');
  const area = page.getByRole('application', { name: /Hitmap/ });
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
  const before = await area.getAttribute('data-from');
  await expect.poll(() => area.getAttribute('data-from'), { timeout: 12_000 }).not.toBe(before);
});

test('a view asks the server what it needs, and no more often than it says', async ({ page, watched }) => {
  const asked = new Map<string, number>();
  page.on('request', (request) => {
    const path = new URL(request.url()).pathname.replace(/\/transactions\/.*/, '/transactions/ID');
    if (path.startsWith('/api/')) asked.set(path, (asked.get(path) ?? 0) + 1);
  });
  const SECONDS = 6;
  for (const hash of ['#/', '#/statistics', '#/statistics?kind=sql', '#/transactions', '#/active', '#/instances']) {
    await page.goto('about:blank');
    asked.clear();
    await watched.open('normal', hash);
    await page.waitForTimeout(SECONDS * 1000);
    // Once at first, then every five seconds at most; the home page asks for two tops, and for each column that ended.
    for (const [path, times] of asked) expect(times, `${hash} ${path}`).toBeLessThanOrEqual(path === '/api/v1/live' ? 1 : 4);
  }
  const list = await ask<TransactionList>(page, '/transactions?error=any&limit=1');
  await page.goto(page.url().replace(/#.*/, `#/transaction/${list.rows[0]!.id}`));
  await expect(page.getByRole('tabpanel')).toBeVisible();
  asked.clear();
  for (const tab of ['table', 'sql', 'properties', 'waterfall']) await page.locator(`#tab-${tab}`).click();
  expect(asked.get('/api/v1/transactions/ID') ?? 0).toBe(0);
});

test('nothing moves on the page while live figures come in', async ({ page, watched }) => {
  await watched.open('normal');
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
  await expect(page.locator('.chart canvas').first()).toBeVisible();
  await page.evaluate(() => {
    window.shifts = [];
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const { sources } = entry as PerformanceEntry & { sources: { node: Node | null }[] };
        for (const { node } of sources) if (node instanceof Element) window.shifts.push(node.outerHTML.slice(0, 120));
      }
    }).observe({ type: 'layout-shift' });
  });
  const area = page.getByRole('application', { name: /Hitmap/ });
  const before = await area.getAttribute('data-from');
  await expect.poll(() => area.getAttribute('data-from'), { timeout: 20_000 }).not.toBe(before);
  expect(await page.evaluate(() => window.shifts)).toEqual([]);
});

test('a chart can be taken along: table, CSV, PNG, curl', async ({ page, watched, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await watched.open('normal');
  const chart = page.locator('figure', { hasText: 'HTTP status per second' });
  await chart.scrollIntoViewIfNeeded();
  await expect(chart.locator('canvas')).toBeVisible();
  const menu = chart.getByRole('button', { name: /^Save or share/ });
  await menu.click();
  await chart.getByRole('button', { name: 'Show values as a table' }).click();
  await expect(chart.getByRole('columnheader', { name: '2xx' })).toBeVisible();
  await expect(chart.locator('tbody tr')).toHaveCount(120);
  await watched.accessible();
  const save = async (name: string) => {
    await menu.click();
    const waiting = page.waitForEvent('download');
    await chart.getByRole('button', { name }).click();
    return readFileSync((await (await waiting).path())!);
  };
  const lines = (await save('Values as CSV')).toString('utf8').replace('\ufeff', '').trim().split('\r\n');
  expect(lines[0]).toBe('time,2xx,3xx,4xx,5xx,none');
  expect(lines).toHaveLength(121);
  expect(lines[5]).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z,[\d.]+,/);
  const png = await save('Picture as PNG');
  expect(png.subarray(1, 4).toString()).toBe('PNG');
  expect(png.readUInt32BE(16)).toBeGreaterThan(250);
  await menu.click();
  await chart.getByRole('button', { name: 'Copy as curl' }).click();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  expect(command).toMatch(/^curl -sS -H "Authorization: Bearer \$WHATAP_TOKEN" 'http:\/\/127\.0\.0\.1:\d+\/api\/v1\/meters\?from=\d+&to=\d+&step=5'$/);
});

test('values under the pointer stay while new ones arrive, in every chart at once', async ({ page, watched }) => {
  await watched.open('normal');
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
  const plot = page.getByRole('application', { name: /^Response time/ });
  await plot.scrollIntoViewIfNeeded();
  const box = (await plot.boundingBox())!;
  await page.mouse.move(box.x + box.width / 2, box.y + 50);
  await page.mouse.move(box.x + box.width / 2 + 3, box.y + 52);
  const values = page.locator('.chart .legend b');
  await expect.poll(() => values.count()).toBeGreaterThan(8);
  await page.waitForTimeout(2500);
  expect(await values.count()).toBeGreaterThan(8);
});

test('without a live stream the page asks, says so, and still shows data', async ({ page, watched }) => {
  watched.expected.push(/503/);
  await watched.open('nolive');
  await expect(page.getByText('The live stream is interrupted')).toBeVisible({ timeout: 15_000 });
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
  await expect(page.locator('.running .centre b')).toHaveText(/\d/);
});

test('a server that has gone is said, and found again', async ({ page, watched }) => {
  watched.expected.push(/Failed to load resource|ERR_/);
  const first = await startServer('normal', 0);
  await page.goto(`${first.url}/`);
  await expect(page.locator('.hitmap .counts')).not.toHaveText(/^0 /);
  await first.stop();
  await expect(page.getByText('The server does not answer')).toBeVisible({ timeout: 20_000 });
  const second = await startServer('normal', Number(new URL(first.url).port));
  await expect(page.getByText('The server does not answer')).toHaveCount(0, { timeout: 20_000 });
  await second.stop();
});
