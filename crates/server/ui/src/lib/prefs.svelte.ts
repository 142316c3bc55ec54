// What a reader chose, kept in this browser: language, theme, time zone, colours.

import { LANGUAGES, type Language, translate, type Key, type Params } from '../i18n';
import type { Style } from './format';

export const THEMES = ['auto', 'light', 'dark'] as const;
export type Theme = (typeof THEMES)[number];
export const PALETTES = ['standard', 'safe'] as const;
export type Palette = (typeof PALETTES)[number];

function stored<T extends string>(key: string, allowed: readonly T[], fallback: T): T {
  try {
    const value = localStorage.getItem(`whatap.${key}`);
    return allowed.find((one) => one === value) ?? fallback;
  } catch {
    return fallback; // Storage may be forbidden; the page works without.
  }
}

function store(key: string, value: string): void {
  try {
    localStorage.setItem(`whatap.${key}`, value);
  } catch {
    // See above.
  }
}

function browserLanguage(): Language {
  for (const wanted of navigator.languages) {
    const found = LANGUAGES.find((one) => wanted.toLowerCase().startsWith(one));
    if (found) return found;
  }
  return 'en';
}

const darkScheme = matchMedia('(prefers-color-scheme: dark)');

class Prefs {
  language = $state<Language>(stored('language', LANGUAGES, browserLanguage()));
  theme = $state<Theme>(stored('theme', THEMES, 'auto'));
  palette = $state<Palette>(stored('palette', PALETTES, 'standard'));
  utc = $state(stored('zone', ['local', 'utc'], 'local') === 'utc');
  private systemDark = $state(darkScheme.matches);

  constructor() {
    darkScheme.addEventListener('change', (event) => (this.systemDark = event.matches));
  }

  get dark(): boolean {
    return this.theme === 'dark' || (this.theme === 'auto' && this.systemDark);
  }

  get style(): Style {
    return { locale: this.language, utc: this.utc };
  }

  setLanguage(value: Language): void {
    this.language = value;
    store('language', value);
  }

  setTheme(value: Theme): void {
    this.theme = value;
    store('theme', value);
  }

  setPalette(value: Palette): void {
    this.palette = value;
    store('palette', value);
  }

  setUtc(value: boolean): void {
    this.utc = value;
    store('zone', value ? 'utc' : 'local');
  }
}

export const prefs = new Prefs();

/** The text of a key in the reader's language. */
export function t(key: Key, params?: Params): string {
  return translate(prefs.language, key, params);
}
