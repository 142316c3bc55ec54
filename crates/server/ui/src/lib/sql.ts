// SQL for reading: a line for each clause. Only blanks change, so what is shown is what ran. Pure.

const TOKEN = /'(?:[^']|'')*'?|"(?:[^"]|"")*"?|`[^`]*`?|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|\s+|[A-Za-z_][\w$]*|[\s\S]/g;

/** A clause begins a line. */
const CLAUSES = new Set([
  'SELECT', 'FROM', 'WHERE', 'GROUP', 'HAVING', 'ORDER', 'LIMIT', 'OFFSET', 'UNION', 'INTERSECT', 'EXCEPT', 'VALUES', 'SET', 'RETURNING', 'WINDOW',
]);
const JOINS = new Set(['LEFT', 'RIGHT', 'FULL', 'INNER', 'CROSS', 'NATURAL', 'JOIN']);
/** After these, a word of `CLAUSES` or `JOINS` goes on with the same clause. */
const BEFORE: Record<string, readonly string[]> = {
  FROM: ['DELETE', 'DISTINCT'], GROUP: ['WITHIN'], SET: ['CHARACTER'], JOIN: ['LEFT', 'RIGHT', 'FULL', 'INNER', 'CROSS', 'NATURAL', 'OUTER'],
};
/** Statements that are short enough to be read as they are. */
const SHORT = 60;

export function prettySql(sql: string): string {
  const text = sql.trim();
  if (text.length <= SHORT || text.includes('\n')) return text;
  const tokens = text.match(TOKEN) ?? [];
  const after = (i: number) => (/^\s/.test(tokens[i + 1] ?? '') ? tokens[i + 2] : tokens[i + 1]) ?? '';
  /** For each open parenthesis, whether it holds a query. */
  const open: boolean[] = [];
  let out = '';
  let previous = '';
  let between = 0;
  const depth = () => open.filter(Boolean).length;
  const line = (more: number) => {
    out = `${out.trimEnd()}${out === '' ? '' : '\n'}${'  '.repeat(depth() + more)}`;
  };
  tokens.forEach((token, i) => {
    if (/^\s+$/.test(token)) {
      if (out !== '' && !/\s$/.test(out)) out += ' ';
      return;
    }
    const word = token.toUpperCase();
    const inList = open.length > 0 && !open[open.length - 1];
    if (token === '(') {
      const query = /^(SELECT|WITH)$/i.test(after(i));
      out += token;
      open.push(query);
      if (query) line(0);
    } else if (token === ')') {
      if (open.pop()) line(0);
      out += token;
    } else {
      if (word === 'BETWEEN') between += 1;
      const closes = word === 'AND' && between > 0;
      if (closes) between -= 1;
      if (!inList && out !== '' && !BEFORE[word]?.includes(previous)) {
        if (CLAUSES.has(word) || (JOINS.has(word) && after(i) !== '(')) {
          if (!/[(]\s*$/.test(out)) line(0);
        } else if ((word === 'AND' || word === 'OR') && !closes) line(1);
      }
      out += token;
      // Nothing may follow a comment on its line.
      if (token.startsWith('--')) line(0);
      previous = word;
    }
  });
  return out;
}
