import { describe, expect, it } from 'vitest';
import { isLibrary, parseStack, stackText, stackTitle } from './stack';

const TEXT = '/srv/app/views.py\x0088\0pay\0bank.charge(card)\n/srv/.venv/lib/python3.11/site-packages/requests/api.py\x0059\0post\0\n';

describe('a stack that came as text', () => {
  it('is read into frames', () => {
    const frames = parseStack(TEXT);
    expect(frames).toHaveLength(2);
    expect(frames[0]).toEqual({ file: '/srv/app/views.py', line: 88, function: 'pay', source: 'bank.charge(card)' });
    expect(parseStack('no frame at all')).toEqual([{ file: '', line: 0, function: '', source: 'no frame at all' }]);
  });
  it('is named after the application’s innermost call', () => {
    expect(stackTitle(parseStack(TEXT))).toBe('pay · /srv/app/views.py:88');
    expect(stackTitle([])).toBe('');
  });
  it('is copied as Python prints it', () => {
    expect(stackText(parseStack(TEXT))).toContain('  File "/srv/app/views.py", line 88, in pay\n    bank.charge(card)\n');
  });
});

describe('a frame', () => {
  it('is a library’s by its place, not by a word in its name', () => {
    const at = (file: string) => isLibrary({ file, line: 1, function: 'f', source: '' });
    expect(at('/srv/.venv/lib/python3.11/site-packages/flask/app.py')).toBe(true);
    expect(at('/usr/lib/python3/dist-packages/six.py')).toBe(true);
    expect(at('/usr/lib/python3.12/threading.py')).toBe(true);
    expect(at('<frozen importlib._bootstrap>')).toBe(true);
    expect(at('/srv/site-packages-mirror/app.py')).toBe(false);
    expect(at('/srv/lib/payments.py')).toBe(false);
  });
});
