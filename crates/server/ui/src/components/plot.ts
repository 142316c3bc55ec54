// How uPlot is told to draw a chart. What the chart knows at the moment of drawing comes from `Shown`.

import uPlot from 'uplot';
import { colour } from '../lib/colours';
import { timeLabels } from '../lib/hitmap';
import { prefs } from '../lib/prefs.svelte';
import { SECOND } from '../lib/url';
import { alone, ticks, type ChartSeries } from './chart';

export type PlotKind = 'line' | 'area' | 'bars';

/** What is asked each time something is drawn. */
export interface Shown {
  times: () => number[];
  step: () => number;
  width: () => number;
  axis: (value: number) => string;
  /** Where the vertical axis ends, for a highest value; what it was told last. */
  scaleTop: (max: number) => number;
  top: () => number;
  unit: number;
  oncursor: (index: number | null) => void;
  /** A range was drawn: steps from … to, both included. */
  onselect?: (from: number, to: number) => void;
}

export function plotOptions(size: { width: number; height: number }, series: readonly ChartSeries[], kind: PlotKind, stacked: boolean, shown: Shown): uPlot.Options {
  return {
    ...size,
    padding: [8, 6, 0, 0],
    legend: { show: false },
    cursor: {
      x: true, y: false,
      points: { show: false },
      drag: { x: Boolean(shown.onselect), y: false, setScale: false },
      sync: { key: 'time', setSeries: false },
    },
    select: { show: Boolean(shown.onselect), left: 0, top: 0, width: 0, height: 0 },
    scales: { x: { time: false }, y: { range: (_, __, max) => [0, shown.scaleTop(max)] } },
    axes: [timeAxis(shown), valueAxis(shown)],
    series: [{}, ...series.map((one) => line(one, kind, stacked))],
    hooks: {
      setCursor: [(u) => shown.oncursor(u.cursor.idx ?? null)],
      setSelect: [(u) => select(u, shown)],
    },
  };
}

function timeAxis(shown: Shown): uPlot.Axis {
  let labels: { column: number; text: string }[] = [];
  return {
    stroke: () => colour('--muted'), grid: { show: false }, ticks: { show: false }, size: 22, gap: 4, space: 56, font: '11px system-ui',
    // uPlot asks for the places first, then for their texts.
    splits: () => {
      labels = roundTimes(shown);
      return labels.map((label) => (shown.times()[0]! + label.column * shown.step()) / SECOND);
    },
    // A label at the very edge would be cut, or run into those of the other axis.
    values: (u, values) => values.map((value, i) => {
      const x = u.valToPos(value, 'x');
      return x < 18 || x > u.over.clientWidth - 12 ? '' : (labels[i]?.text ?? '');
    }),
  };
}

/** Round times, as many as there is room for. */
function roundTimes(shown: Shown): { column: number; text: string }[] {
  const times = shown.times();
  if (times.length === 0) return [];
  const step = shown.step();
  const grid = { from: times[0]!, to: times[times.length - 1]! + step, column: step, columns: times.length };
  return timeLabels(grid, (62 / Math.max(60, shown.width() - 70)) * times.length, prefs.style);
}

function valueAxis(shown: Shown): uPlot.Axis {
  return {
    stroke: () => colour('--muted'), grid: { stroke: () => colour('--line'), width: 1 }, ticks: { show: false }, size: 54, gap: 6, font: '11px system-ui',
    splits: () => ticks(shown.top(), shown.unit), values: (_, values) => values.map((value) => shown.axis(value)),
  };
}

const bars = uPlot.paths.bars!({ size: [0.78, 24], gap: 0 });

function line(one: ChartSeries, kind: PlotKind, stacked: boolean): uPlot.Series {
  return {
    label: one.label,
    stroke: () => colour(one.colour),
    width: kind === 'bars' ? 0 : one.strong === false ? 1.25 : 1.75,
    ...(one.dash ? { dash: one.dash } : {}),
    ...(kind === 'line' ? {} : { fill: () => colour(one.colour) + (kind === 'area' && !stacked ? '33' : '') }),
    ...(kind === 'bars' ? { paths: bars } : {}),
    points: { show: kind !== 'bars', size: 4, fill: () => colour(one.colour), filter: (u, i) => alone(u.data[i]) },
    spanGaps: false,
  };
}

function select(u: uPlot, shown: Shown): void {
  if (!shown.onselect || u.select.width < 3) return;
  const first = (shown.times()[0] ?? 0) / SECOND;
  const column = (left: number) => Math.floor(((u.posToVal(left, 'x') - first) * SECOND) / shown.step());
  const [from, to] = [column(u.select.left), column(u.select.left + u.select.width)];
  u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  shown.onselect(from, to);
}
