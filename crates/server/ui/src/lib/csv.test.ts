import { describe, expect, it } from 'vitest';
import { csv } from './csv';

describe('csv', () => {
  it('quotes what must be quoted', () => {
    expect(csv(['a', 'b'], [['x,y', 'say "hi"'], ['two\nlines', null], [1.5, Number.NaN]])).toBe(
      'a,b\r\n"x,y","say ""hi"""\r\n"two\nlines",\r\n1.5,\r\n',
    );
  });
  it('does not let a cell become a formula', () => {
    const evil = ['=HYPERLINK("http://x")', '+1', '-1+2', '@SUM(A1)', '\t=1', '\r=1'];
    for (const text of evil) {
      const line = csv(['h'], [[text]]).slice('h\r\n'.length);
      expect(line.replace(/^"/, '').startsWith("'")).toBe(true);
    }
  });
  it('leaves negative numbers numbers', () => {
    expect(csv(['h'], [[-5]])).toBe('h\r\n-5\r\n');
  });
});
