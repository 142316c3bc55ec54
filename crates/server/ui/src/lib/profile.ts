// What a profile's steps say in sum. Pure.

import type { Breakdown, Step, TraceSpan, Transaction } from '../api/types';

export interface Part {
  key: keyof Breakdown;
  us: number;
  share: number;
}

const PARTS: readonly (keyof Breakdown)[] = ['sql_us', 'fetch_us', 'dbc_us', 'http_us', 'method_us', 'own_us', 'gap_us'];

/** The parts of the response time that are not zero. Steps in parallel may add up to more: then shares are of the sum. */
export function breakdownParts(breakdown: Breakdown, elapsed: number): Part[] {
  const sum = PARTS.reduce((total, key) => total + breakdown[key], 0);
  const whole = Math.max(sum, elapsed, 1);
  return PARTS.filter((key) => breakdown[key] > 0).map((key) => ({
    key,
    us: breakdown[key],
    share: breakdown[key] / whole,
  }));
}

/** The same statement this often is named as repeated: one query per row of another one, as a rule. */
export const N_PLUS_ONE = 10;

export interface Summary {
  key: string;
  system: string;
  target: string;
  count: number;
  total_us: number;
  max_us: number;
  /** Without the steps inside. */
  own_us: number;
  error: number;
  rows: number | null;
  /** Longest run of the same statement without another between. */
  run: number;
  steps: number[];
  callees: string[];
}

function summarise(steps: readonly Step[], kind: Step['kind'], keyOf: (step: Step) => string): Summary[] {
  const found = new Map<string, Summary>();
  let previous: Summary | null = null;
  let run = 0;
  const inside = timeInside(steps);
  for (const step of steps) {
    if (step.kind !== kind) continue;
    const id = `${step.system}\n${step.target}\n${keyOf(step)}`;
    const times = Math.max(1, step.repeat);
    let row = found.get(id);
    if (!row) {
      row = {
        key: keyOf(step), system: step.system, target: step.target, count: 0, total_us: 0, max_us: 0, own_us: 0, error: 0, rows: null,
        run: 0, steps: [], callees: [],
      };
      found.set(id, row);
    }
    run = row === previous ? run + times : times;
    previous = row;
    row.run = Math.max(row.run, run);
    row.count += times;
    row.total_us += step.elapsed_us;
    row.own_us += Math.max(0, step.elapsed_us - (inside.get(step.index) ?? 0));
    row.max_us = Math.max(row.max_us, step.elapsed_us);
    row.error += step.error === null ? 0 : 1;
    if (step.rows !== null) row.rows = (row.rows ?? 0) + step.rows;
    row.steps.push(step.index);
    if (step.callee) row.callees.push(step.callee);
  }
  return [...found.values()].sort((a, b) => b.total_us - a.total_us || b.count - a.count);
}

/** For each step with others inside: how long those took. */
function timeInside(steps: readonly Step[]): Map<number, number> {
  const inside = new Map<number, number>();
  for (const { parent, elapsed_us } of steps) if (parent !== null) inside.set(parent, (inside.get(parent) ?? 0) + elapsed_us);
  return inside;
}

export function methodSummary(steps: readonly Step[]): Summary[] {
  return summarise(steps, 'method', (step) => step.text).sort((a, b) => b.own_us - a.own_us);
}

/** What a transaction was in when its process died: the innermost step that had not ended. */
export function unfinished(steps: readonly Step[], elapsed_us: number): Step | null {
  return steps.findLast((step) => step.elapsed_us > 0 && step.start_us + step.elapsed_us >= elapsed_us - 1000) ?? null;
}

export function sqlSummary(steps: readonly Step[]): Summary[] {
  return summarise(steps, 'sql', (step) => step.text);
}

export function httpSummary(steps: readonly Step[]): Summary[] {
  return summarise(steps, 'http', (step) => `${step.method} ${withoutQuery(step.text)}`.trim());
}

function withoutQuery(url: string): string {
  const mark = url.indexOf('?');
  return mark < 0 ? url : url.slice(0, mark);
}

export function isNPlusOne(row: Summary): boolean {
  return row.run >= N_PLUS_ONE;
}

/** A step in the order of the tree, with its depth and the time since the step before it ended. */
export interface StepRow {
  step: Step;
  depth: number;
  gap_us: number;
  children: number;
}

/** Depth-first, children by start. A parent that is missing or later than its child is ignored, so no loop can form. */
export function stepRows(steps: readonly Step[]): StepRow[] {
  const byParent = new Map<number | null, Step[]>();
  const known = new Set(steps.map((step) => step.index));
  for (const step of steps) {
    const parent = step.parent !== null && step.parent < step.index && known.has(step.parent) ? step.parent : null;
    const list = byParent.get(parent);
    if (list) list.push(step);
    else byParent.set(parent, [step]);
  }
  const rows: StepRow[] = [];
  const stack: { step: Step; depth: number }[] = [];
  const push = (parent: number | null, depth: number) => {
    const children = [...(byParent.get(parent) ?? [])].sort((a, b) => b.start_us - a.start_us || b.index - a.index);
    for (const step of children) stack.push({ step, depth });
  };
  push(null, 0);
  let covered = 0;
  for (let next = stack.pop(); next; next = stack.pop()) {
    const { step, depth } = next;
    rows.push({ step, depth, gap_us: Math.max(0, step.start_us - covered), children: byParent.get(step.index)?.length ?? 0 });
    // A step with children covers time only up to its first child; the last descendant covers the rest.
    const hasChildren = byParent.has(step.index);
    covered = Math.max(covered, hasChildren ? step.start_us : step.start_us + step.elapsed_us);
    push(step.index, depth + 1);
  }
  return rows;
}

/** The steps that the response time waited for: from the end backwards, whatever ended last. */
export function criticalPath(steps: readonly Step[]): Set<number> {
  const path = new Set<number>();
  const timed = steps.filter((step) => step.elapsed_us > 0).sort((a, b) => b.start_us + b.elapsed_us - (a.start_us + a.elapsed_us));
  const parents = new Set(steps.map((step) => step.parent).filter((parent) => parent !== null));
  let limit = Infinity;
  for (const step of timed) {
    if (parents.has(step.index) || step.start_us + step.elapsed_us > limit) continue;
    path.add(step.index);
    limit = step.start_us;
  }
  return path;
}

/** One line of the trace over services. */
export interface TraceRow {
  span: TraceSpan;
  depth: number;
  transaction: Transaction | null;
}

/** The spans of a trace as one tree, roots by start. Loops in what was sent are cut. */
export function traceRows(spans: readonly TraceSpan[], transactions: readonly Transaction[]): TraceRow[] {
  const byId = new Map(transactions.map((transaction) => [transaction.id, transaction]));
  const known = new Set(spans.map((span) => span.id));
  const children = new Map<string, TraceSpan[]>();
  for (const span of spans) {
    const parent = span.parent_id !== null && span.parent_id !== span.id && known.has(span.parent_id) ? span.parent_id : '';
    const list = children.get(parent);
    if (list) list.push(span);
    else children.set(parent, [span]);
  }
  const rows: TraceRow[] = [];
  const seen = new Set<TraceSpan>();
  const walk = (roots: readonly TraceSpan[]) => {
    const stack = inverted(roots).map((span) => ({ span, depth: 0 }));
    for (let next = stack.pop(); next; next = stack.pop()) {
      const { span, depth } = next;
      if (seen.has(span)) continue;
      seen.add(span);
      rows.push({ span, depth, transaction: byId.get(span.id) ?? null });
      for (const child of inverted(children.get(span.id) ?? [])) stack.push({ span: child, depth: depth + 1 });
    }
  };
  walk(children.get('') ?? []);
  walk(spans.filter((span) => !seen.has(span)));
  return rows;
}

function inverted(spans: readonly TraceSpan[]): TraceSpan[] {
  return [...spans].sort((a, b) => b.start_us - a.start_us);
}

/** OpenTelemetry's severity numbers in their six classes. */
export function severityName(severity: number): 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'none' {
  const names = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
  return severity >= 1 && severity <= 24 ? names[Math.floor((severity - 1) / 4)]! : 'none';
}

/** `GET /orders` as method and name, as the statistics' keys are written. */
export function splitName(key: string): { method: string; name: string } {
  const match = /^([A-Z]{3,10}) (.*)$/s.exec(key);
  return match ? { method: match[1]!, name: match[2]! } : { method: '', name: key };
}
