import { describe, expect, it } from 'vitest';
import { prettySql } from './sql';

const bare = (sql: string) => sql.replace(/\s+/g, '');

describe('SQL for reading', () => {
  it('gives each clause a line', () => {
    expect(prettySql('SELECT o.id, sum(i.price) FROM orders o LEFT JOIN items i ON i.order_id = o.id WHERE o.state = # AND o.created BETWEEN # AND # OR o.id = # GROUP BY o.id ORDER BY 2 DESC LIMIT #')).toBe(
      [
        'SELECT o.id, sum(i.price)', 'FROM orders o', 'LEFT JOIN items i ON i.order_id = o.id', 'WHERE o.state = #', '  AND o.created BETWEEN # AND #', '  OR o.id = #',
        'GROUP BY o.id', 'ORDER BY 2 DESC', 'LIMIT #',
      ].join('\n'),
    );
  });
  it('indents a query in a query', () => {
    expect(prettySql('SELECT name FROM users WHERE id IN (SELECT user_id FROM orders WHERE total > # AND state = #) AND active')).toBe(
      ['SELECT name', 'FROM users', 'WHERE id IN (', '  SELECT user_id', '  FROM orders', '  WHERE total > #', '    AND state = #', ')', '  AND active'].join('\n'),
    );
  });
  it('leaves what lies in a function or in a text alone', () => {
    expect(prettySql("UPDATE t SET a = extract(day FROM b), c = 'x FROM y WHERE z', d = trim(BOTH FROM e) WHERE (a OR b) AND c = #")).toBe(
      ['UPDATE t', "SET a = extract(day FROM b), c = 'x FROM y WHERE z', d = trim(BOTH FROM e)", 'WHERE (a OR b)', '  AND c = #'].join('\n'),
    );
    expect(prettySql('DELETE FROM a_rather_long_table_name WHERE x IS DISTINCT FROM # AND y = #')).toMatch(/^DELETE FROM .*\nWHERE x IS DISTINCT FROM #\n {2}AND y = #$/);
  });
  it('keeps short ones and those that have lines already', () => {
    expect(prettySql('SELECT 1 FROM a WHERE b = #')).toBe('SELECT 1 FROM a WHERE b = #');
    const own = 'SELECT *\nFROM a_table_with_a_long_name\nWHERE a_column_with_a_long_name = #';
    expect(prettySql(own)).toBe(own);
  });
  it('changes blanks only, whatever it gets', () => {
    for (const sql of [
      'SELECT ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((', "SELECT 'never closed FROM a WHERE b = # AND c = # AND d = # AND e = #", ')))) FROM a WHERE b ORDER BY c, d, e, f, g, h, i, j, k, l, m, n',
      'WITH RECURSIVE c(x) AS (SELECT # UNION ALL SELECT x+# FROM c WHERE x < #) SELECT count(*) FROM c /* nightly', 'INSERT INTO t (a, b) VALUES (#, #), (#, #) ON CONFLICT (a) DO UPDATE SET b = # RETURNING *',
    ]) expect(bare(prettySql(sql))).toBe(bare(sql));
  });
  it('takes long ones in a moment', () => {
    const long = `SELECT * FROM t WHERE ${'(a = # AND b IN (SELECT c FROM d)) OR '.repeat(800)} x`;
    expect(bare(prettySql(long))).toBe(bare(long));
  });
});
