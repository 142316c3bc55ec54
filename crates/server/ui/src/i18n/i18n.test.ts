import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'svelte/compiler';
import { describe, expect, it } from 'vitest';
import { CATALOGUES, LANGUAGES, LANGUAGE_NAMES, translate, type Key } from './index';

const SOURCES = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .filter((name) => /\.(svelte|ts)$/.test(name) && !name.includes('.test.') && !name.startsWith('i18n'))
  .map((name) => ({ name, text: readFileSync(join('src', name), 'utf8') }));
const KEYS = Object.keys(CATALOGUES.en) as Key[];

function placeholders(text: string): string[] {
  return [...new Set(text.match(/\{\w+\}/g) ?? [])].sort();
}

describe('every language', () => {
  for (const language of LANGUAGES) {
    it(`${LANGUAGE_NAMES[language]} has every text, with the same placeholders`, () => {
      expect(Object.keys(CATALOGUES[language]).sort()).toEqual([...KEYS].sort());
      for (const key of KEYS) {
        expect(CATALOGUES[language][key].trim(), key).not.toBe('');
        expect(placeholders(CATALOGUES[language][key]), key).toEqual(placeholders(CATALOGUES.en[key]));
      }
    });
  }
  it('fills in what is given, and tells one from many', () => {
    expect(translate('en', 'n.transactions', { n: 1 })).toBe('1 transaction');
    expect(translate('en', 'n.transactions', { n: '1,024' })).toBe('1,024 transactions');
    expect(translate('ko', 'n.transactions', { n: 2 })).toBe('트랜잭션 2건');
  });
  it('does not replace inside what was filled in', () => {
    expect(translate('en', 'error.server', { message: '{n}' })).toContain('{n}');
  });
});

describe('the catalogue', () => {
  it('has no text that nothing shows', () => {
    const all = SOURCES.map((source) => source.text).join('\n');
    const prefixes = [...all.matchAll(/t\(\s*`([\w.]+\.)\$\{/g)].map((match) => match[1]!);
    const middles = [...all.matchAll(/t\(\s*`([\w.]+\.)\$\{\w+\}(\.[\w.]+)`/g)].map((match) => match[1]!);
    const unused = KEYS.filter(
      (key) => !all.includes(`'${key}'`) && ![...prefixes, ...middles].some((prefix) => key.startsWith(prefix)),
    );
    expect(unused).toEqual([]);
  });
});

/** Words that are the same everywhere: names of programs, units, signs. */
const NEUTRAL = /^(whatap|UTC|N\+1|p95|max|pid|ms|s|×|⌀|Esc|server\.json)$/;

describe('templates', () => {
  for (const { name, text } of SOURCES.filter((source) => source.name.endsWith('.svelte'))) {
    it(`${name} has no text of its own`, () => {
      expect(foundTexts(parse(text, { modern: true }).fragment)).toEqual([]);
    });
  }
});

interface Node {
  type: string;
  name?: string;
  data?: string;
  [key: string]: unknown;
}

const SHOWN_ATTRIBUTES = ['title', 'placeholder', 'alt', 'aria-label', 'aria-roledescription'];
/** Commands and file names are shown as they are typed. */
const VERBATIM = ['pre', 'code', 'style', 'script', 'kbd', 'svelte:options'];

function foundTexts(root: unknown): string[] {
  const found: string[] = [];
  const visit = (value: unknown, shown: boolean) => {
    if (Array.isArray(value)) return value.forEach((one) => visit(one, shown));
    if (typeof value !== 'object' || value === null) return;
    const node = value as Node;
    if (node.type === 'RegularElement' && VERBATIM.includes(node.name ?? '')) return;
    if (node.type === 'Attribute') return visit(node['value'], SHOWN_ATTRIBUTES.includes(node.name ?? ''));
    if (['StyleDirective', 'ClassDirective', 'Comment'].includes(node.type)) return;
    if (node.type === 'Text' && shown) {
      const words = (node.data ?? '').split(/[\s/:·+#!?‹›←→↑↓✕✓▲▼…⇄≡()[\],–0-9]+/).filter((word) => /\p{L}/u.test(word));
      found.push(...words.filter((word) => !NEUTRAL.test(word) && !/^[A-Za-z]$/.test(word)));
    }
    for (const [key, child] of Object.entries(node)) if (key !== 'metadata') visit(child, node.type === 'Text' ? shown : true);
  };
  visit(root, true);
  return found;
}
