// What is delivered, and what must not be in the sources.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';

const FIRST_LOAD = 150 * 1024;

function files(root: string): { name: string; bytes: Buffer }[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => ({ name: join(entry.parentPath, entry.name), bytes: readFileSync(join(entry.parentPath, entry.name)) }));
}

describe('the built page', () => {
  const built = files('dist');
  it('loads little at first', () => {
    const size = built.reduce((sum, file) => sum + gzipSync(file.bytes).length, 0);
    expect(size).toBeLessThan(FIRST_LOAD);
  });
  it('has no script and no style of its own in the document', () => {
    const page = readFileSync('dist/index.html', 'utf8');
    expect(page).not.toMatch(/<style|\sstyle=|\son\w+=/);
    expect([...page.matchAll(/<script\b[^>]*>/g)].every((tag) => /\ssrc="\/assets\//.test(tag[0]))).toBe(true);
  });
  it('names no other host that it would load from', () => {
    const hosts = built.flatMap((file) => [...file.bytes.toString('utf8').matchAll(/https?:\/\/([a-z0-9.-]+)/gi)].map((match) => match[1]));
    // Name spaces, and where the framework's error messages are explained.
    expect([...new Set(hosts)].filter((host) => !['www.w3.org', 'svelte.dev'].includes(host!))).toEqual([]);
  });
});

describe('the sources', () => {
  it('put no string into the page as markup or code', () => {
    const sinks = /\{@html|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser|setTimeout\(['"`]|href=\{?["'`]?javascript/;
    const found = files('src')
      .filter((file) => /\.(svelte|ts)$/.test(file.name) && !file.name.endsWith('.test.ts'))
      .filter((file) => sinks.test(file.bytes.toString('utf8')))
      .map((file) => file.name);
    expect(found).toEqual([]);
  });
});
