// What the series charts compute. Pure.

export interface ChartSeries {
  key: string;
  label: string;
  /** A variable of the style sheet. */
  colour: string;
  values: (number | null)[];
  dash?: number[];
  /** `false` draws a thinner line. */
  strong?: boolean;
}

/** Each list is what its own value and those after it add up to: drawn in order, the later ones cover the earlier. */
export function stack(lists: readonly (number | null)[][]): (number | null)[][] {
  const out: (number | null)[][] = lists.map(() => []);
  const length = Math.max(0, ...lists.map((list) => list.length));
  for (let i = 0; i < length; i += 1) {
    let sum = 0;
    for (let k = lists.length - 1; k >= 0; k -= 1) {
      sum += lists[k]![i] ?? 0;
      out[k]!.push(sum);
    }
  }
  return out;
}

/** The next 1, 1.5, 2, 3, 5 or 8 times a power of ten that leaves a little room above; in `unit`s. */
export function niceMax(value: number, unit = 1): number {
  if (!(value > 0)) return unit;
  const wanted = (value / unit) * 1.02;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 1.5, 2, 3, 5, 8, 10].find((one) => one * power >= wanted) ?? 10;
  return step * power * unit;
}

/** Where the lines of an axis are: halves, or thirds for 1.5 and 3. */
export function ticks(top: number, unit = 1): number[] {
  const lead = Number((top / unit).toExponential(3).split('e')[0]);
  const shown = lead === 1.5 || lead === 3 ? 3 : 2;
  return Array.from({ length: shown + 1 }, (_, i) => (top * i) / shown);
}

/** The end of an axis: grows at once, shrinks only when more than half would stay empty and nobody is reading. */
export function settledMax(current: number, wanted: number, reading: boolean): number {
  if (wanted >= current) return wanted;
  return reading || wanted > current * 0.45 ? current : wanted;
}

/** Values without a neighbour: a line through one point would not be seen. */
export function alone(values: ArrayLike<number | null | undefined> | undefined): number[] {
  const found: number[] = [];
  for (let i = 0; values && i < values.length; i += 1) {
    if (values[i] != null && values[i - 1] == null && values[i + 1] == null) found.push(i);
  }
  return found;
}

/** Gauges come about once per step, and sometimes just after its end: a single step without one is no gap. */
export function bridged(values: readonly (number | null)[]): (number | null)[] {
  return values.map((value, i) => {
    const [before, after] = [values[i - 1], values[i + 1]];
    return value === null && before != null && after != null ? (before + after) / 2 : value;
  });
}
