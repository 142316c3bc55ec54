// Call stacks: what is the application's own, and stacks that come as text. Pure.

import type { StackFrame } from '../api/types';

/** A frame of a library or of Python itself. */
export function isLibrary(frame: StackFrame): boolean {
  return /(^|[\\/])(site-packages|dist-packages)[\\/]|[\\/]lib\/(python|pypy)\d|^<frozen /.test(frame.file);
}

/** Lines of `file NUL line NUL function NUL source`, as the tracer writes them; others are shown as they come. */
export function parseStack(text: string): StackFrame[] {
  return text.split('\n').filter((line) => line !== '').map((line) => {
    const [file = '', number = '', name = '', source = ''] = line.split('\0');
    return line.includes('\0') ? { file, line: Number(number) || 0, function: name, source } : { file: '', line: 0, function: '', source: line };
  });
}

/** For one line: where the application was, else the innermost call. */
export function stackTitle(frames: readonly StackFrame[]): string {
  const frame = frames.findLast((one) => one.file !== '' && !isLibrary(one)) ?? frames.at(-1);
  if (!frame) return '';
  return frame.file === '' ? frame.source : `${frame.function} · ${frame.file}:${frame.line}`;
}

/** As text for a message or a ticket, newest call last as Python prints it. */
export function stackText(frames: readonly StackFrame[]): string {
  return frames.map((one) => (one.file === '' ? one.source : `  File "${one.file}", line ${one.line}, in ${one.function}${one.source ? `\n    ${one.source}` : ''}`)).join('\n');
}
