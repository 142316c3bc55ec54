// Starts one stand-in server for each mode on a free port, and ends them.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';

/** `flood` is an hour in a minute. */
const MODES = ['normal', 'hostile', 'empty', 'locked', 'nolive', 'flood'] as const;
const SPEED = 60;
export type Mode = (typeof MODES)[number];

export function urlOf(mode: Mode): string {
  const url = process.env[`WHATAP_UI_${mode}`];
  if (!url) throw new Error(`no server for ${mode}`);
  return url;
}

export interface Server {
  url: string;
  stop: () => Promise<void>;
}

/** Port 0 is any free one. */
export async function startServer(mode: Mode, port: number): Promise<Server> {
  const child = spawn(process.execPath, ['dev/server.mjs', '--port', String(port), '--mode', mode, ...(mode === 'flood' ? ['--speed', String(SPEED)] : [])], { stdio: ['ignore', 'pipe', 'inherit'] });
  const url = await firstUrl(child);
  const stop = async () => {
    const ended = once(child, 'exit');
    child.kill();
    await ended;
  };
  return { url, stop };
}

export default async function start(): Promise<() => Promise<void>> {
  const servers: Server[] = [];
  for (const mode of MODES) {
    const server = await startServer(mode, 0);
    servers.push(server);
    process.env[`WHATAP_UI_${mode}`] = server.url;
  }
  return async () => {
    await Promise.all(servers.map((server) => server.stop()));
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
