import { describe, expect, it } from 'vitest';
import { Turns } from './turns';

function scene() {
  const tasks: (() => void)[] = [];
  const clock = { now: 0 };
  const turns = new Turns(() => clock.now, (run) => tasks.push(run));
  const done: string[] = [];
  const piece = (name: string, ms: number) => turns.add({}, () => { done.push(name); clock.now += ms; });
  const task = () => tasks.shift()?.();
  return { turns, tasks, done, piece, task };
}

describe('work in turns', () => {
  it('does short pieces in one task and long ones in a task each', () => {
    const { done, piece, task, tasks } = scene();
    piece('a', 2);
    piece('b', 3);
    piece('c', 30);
    piece('d', 1);
    expect(tasks).toHaveLength(1);
    task();
    expect(done).toEqual(['a', 'b', 'c']);
    task();
    expect(done).toEqual(['a', 'b', 'c', 'd']);
    expect(tasks).toHaveLength(0);
  });

  it('does only the last of what one owner wants, and nothing for one that has gone', () => {
    const { turns, done, task } = scene();
    const one = {};
    const two = {};
    turns.add(one, () => done.push('old'));
    turns.add(two, () => done.push('gone'));
    turns.add(one, () => done.push('new'));
    turns.drop(two);
    task();
    expect(done).toEqual(['new']);
  });

  it('goes on after a piece that failed', () => {
    const { turns, done, task } = scene();
    turns.add({}, () => { throw new Error('broken'); });
    turns.add({}, () => done.push('next'));
    expect(task).toThrow('broken');
    task();
    expect(done).toEqual(['next']);
  });
});
