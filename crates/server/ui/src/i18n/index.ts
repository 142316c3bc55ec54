// Texts by key. A language is one file that has every key of `en`; the compiler and a test see to it.

import { en } from './en';
import { ja } from './ja';
import { ko } from './ko';
import { zh } from './zh';

export type Key = keyof typeof en;
export type Catalogue = Record<Key, string>;
export type Params = Record<string, string | number>;

export const CATALOGUES = { en, ko, zh, ja } satisfies Record<string, Catalogue>;
export type Language = keyof typeof CATALOGUES;
export const LANGUAGES = Object.keys(CATALOGUES) as Language[];

/** How each language calls itself. */
export const LANGUAGE_NAMES: Record<Language, string> = { en: 'English', ko: '한국어', zh: '中文', ja: '日本語' };

/**
 * The text with `{name}` replaced. With a number `n`, English takes the text before `|` for one and the one
 * after it for the others.
 */
export function translate(language: Language, key: Key, params: Params = {}): string {
  const catalogue: Catalogue = CATALOGUES[language];
  let text = catalogue[key];
  const bar = text.indexOf('|');
  if (bar >= 0) text = String(params['n']) === '1' ? text.slice(0, bar) : text.slice(bar + 1);
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => (name in params ? String(params[name]) : whole));
}
