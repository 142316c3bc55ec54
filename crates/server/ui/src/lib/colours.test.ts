import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const SHEET = readFileSync('src/app.css', 'utf8');

function variables(selector: string): Map<string, string> {
  const begin = SHEET.indexOf(selector);
  const block = SHEET.slice(begin, SHEET.indexOf('}', begin));
  return new Map([...block.matchAll(/(--[\w-]+):\s*(#[0-9a-f]{6})/g)].map((match) => [match[1]!, match[2]!]));
}

/** Relative luminance and contrast as WCAG 2 defines them. */
function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
}

function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high! + 0.05) / (low! + 0.05);
}

/** The gap is what no step covers: a hatched background, not a mark. */
const MARK = /^--(normal|slow|very-slow|c-(?!gap)|s-|p\d|hit-|err-|accent$)/;

describe.each([['light', ':root {'], ['dark', ":root[data-theme='dark']"]])('%s', (_, selector) => {
  const all = variables(selector);
  const surface = all.get('--surface')!;
  it('marks stand out from their card by 3 to 1', () => {
    const weak = [...all].filter(([name, colour]) => MARK.test(name) && contrast(colour, surface) < 3);
    expect(weak).toEqual([]);
  });
  it('text stands out from every background that it is written on by 4.5 to 1', () => {
    const weak = ['--text', '--muted'].flatMap((text) => ['--bg', '--surface', '--surface-2', '--raised'].filter((ground) => contrast(all.get(text)!, all.get(ground)!) < 4.5));
    const tinted = ['good', 'warn', 'bad'].filter((tone) => contrast(all.get(`--${tone}`)!, all.get(`--${tone}-soft`)!) < 4.5);
    expect([...weak, ...tinted]).toEqual([]);
  });
  it('the steps of each ramp go in one direction, so that more is never paler', () => {
    for (const palette of ['standard', 'safe']) {
      for (const ramp of ['hit', 'err']) {
        const steps = [0, 1, 2, 3].map((i) => contrast(all.get(`--${ramp}-${palette}-${i}`)!, surface));
        if (ramp === 'err' && selector !== ':root {' && palette === 'standard') continue; // From yellow to red by hue.
        expect(steps, `${ramp} ${palette}`).toEqual([...steps].sort((a, b) => a - b));
      }
    }
  });
});
