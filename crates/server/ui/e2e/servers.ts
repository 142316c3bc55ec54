// Starts one stand-in server for each mode on a free port, and ends them.

import { spawn, type ChildProcess } from 'node:child_process';

const MODES = ['normal', 'hostile', 'empty', 'locked', 'nolive'] as const;
export type Mode = (typeof MODES)[number];

export function urlOf(mode: Mode): string {
  const url = process.env[`WHATAP_UI_${mode}`];
  if (!url) throw new Error(`no server for ${mode}`);
  return url;
}

export default async function start(): Promise<() => void> {
  const children: ChildProcess[] = [];
  for (const mode of MODES) {
    const child = spawn(process.execPath, ['dev/server.mjs', '--port', '0', '--mode', mode], { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    process.env[`WHATAP_UI_${mode}`] = await firstUrl(child);
  }
  return () => {
    for (const child of children) child.kill();
  };
}

function firstUrl(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
    child.stdout?.on('data', (chunk: Buffer) => {
      const url = /http:\/\/[\d.:]+/.exec(chunk.toString())?.[0];
      if (url) resolve(url);
    });
  });
}
