// Draws the hitmap's axes and cells on a canvas.

import { colour, ramps } from '../lib/colours';
import * as fmt from '../lib/format';
import { ROWS, rowHeight, shade, timeLabels, type CellRect, type HitGrid, type Zoom } from '../lib/hitmap';
import { prefs } from '../lib/prefs.svelte';

const LEFT = 46;
const TOP = 6;
const BOTTOM = 22;
const RIGHT = 4;
/** Between the scale and the row for what is above it. */
const BREAK = 4;
/** Rows from one line of the scale to the next. */
const LINE_ROWS = 8;

/** Where cells are. */
export class Layout {
  readonly cellWidth: number;
  readonly cellHeight: number;

  constructor(readonly width: number, readonly height: number, readonly columns: number) {
    this.cellWidth = Math.max(1, (width - LEFT - RIGHT) / columns);
    this.cellHeight = Math.max(1, (height - TOP - BOTTOM - BREAK) / (ROWS + 1));
  }

  x(column: number): number {
    return LEFT + column * this.cellWidth;
  }

  y(row: number): number {
    return row >= ROWS ? TOP : TOP + BREAK + (ROWS - row) * this.cellHeight;
  }

  /** The cell at a point, or the nearest. */
  cell(x: number, y: number): { column: number; row: number } {
    const column = Math.floor((x - LEFT) / this.cellWidth);
    const row = y < TOP + this.cellHeight + BREAK / 2 ? ROWS : Math.floor((this.height - BOTTOM - y) / this.cellHeight);
    return { column: Math.max(0, Math.min(this.columns - 1, column)), row: Math.max(0, Math.min(ROWS, row)) };
  }

  box(of: CellRect): { left: string; top: string; width: string; height: string } {
    const top = this.y(of.high);
    return {
      left: `${this.x(of.left)}px`, top: `${top}px`,
      width: `${(of.right - of.left + 1) * this.cellWidth}px`, height: `${this.y(of.low) + this.cellHeight - top}px`,
    };
  }
}

export function paint(canvas: HTMLCanvasElement, layout: Layout, hits: HitGrid, zoom: Zoom, errorsOnly: boolean): void {
  const { width, height } = layout;
  const context = canvas.getContext('2d');
  if (!context || width === 0 || height === 0) return;
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  paintAxes(context, layout, hits, zoom);
  paintCells(context, layout, hits, zoom, errorsOnly);
}

function paintAxes(context: CanvasRenderingContext2D, layout: Layout, hits: HitGrid, zoom: Zoom): void {
  const { width, height, cellHeight, cellWidth } = layout;
  context.font = '11px system-ui, sans-serif';
  context.fillStyle = colour('--muted');
  context.strokeStyle = colour('--line');
  context.lineWidth = 1;
  context.textBaseline = 'middle';
  context.textAlign = 'right';
  for (let row = 0; row <= ROWS; row += LINE_ROWS) {
    const y = Math.round(TOP + BREAK + cellHeight + (ROWS - row) * cellHeight) + 0.5;
    context.beginPath();
    context.moveTo(LEFT, y);
    context.lineTo(width - RIGHT, y);
    context.stroke();
    // The row above the scale has its own label there.
    if (row < ROWS) context.fillText(fmt.shortDuration(row * rowHeight(zoom), prefs.language), LEFT - 6, y);
  }
  context.fillText(`> ${zoom} s`, LEFT - 6, TOP + cellHeight / 2);
  context.textAlign = 'center';
  for (const { column, text } of timeLabels(hits.grid, 64 / cellWidth, prefs.style)) {
    const x = layout.x(column);
    if (x < width - 24) context.fillText(text, Math.max(x, LEFT + 14), height - BOTTOM / 2 + 2);
  }
}

function paintCells(context: CanvasRenderingContext2D, layout: Layout, hits: HitGrid, zoom: Zoom, errorsOnly: boolean): void {
  const { cellWidth, cellHeight } = layout;
  const ramp = ramps(prefs.palette);
  const width = cellWidth - (cellWidth >= 4 ? 1 : 0);
  const height = cellHeight - (cellHeight >= 4 ? 1 : 0);
  const notch = cellWidth >= 5 && cellHeight >= 5;
  const mark = colour('--surface');
  hits.eachRow(zoom, (column, row, all, error) => {
    if (errorsOnly && error === 0) return;
    const hit = errorsOnly ? 0 : all;
    const x = layout.x(column);
    const y = layout.y(row);
    context.fillStyle = error > 0 ? ramp.error[shade(error)]! : ramp.normal[shade(hit)]!;
    context.fillRect(x, y, width, height);
    // A few failed ones among many must not hide the many: those keep the cell's lower part.
    if (error > 0 && hit > 0 && cellHeight >= 5) {
      const part = height * (hit > error ? 0.5 : 0.3);
      context.fillStyle = ramp.normal[shade(hit)]!;
      context.fillRect(x, y + height - part, width, part);
    }
    // Colour is not the only sign of an error: its cell has a notch.
    if (error > 0 && notch) {
      context.fillStyle = mark;
      context.beginPath();
      context.moveTo(x + width, y);
      context.lineTo(x + width - 3, y);
      context.lineTo(x + width, y + 3);
      context.fill();
    }
  });
}
