// A chart as a PNG: the canvas that is on the screen with its title, its range and what its colours mean.

import { colour } from './colours';
import { download } from './csv';

export interface Caption {
  title: string;
  /** Range and scope. */
  detail: string;
  legend: { text: string; colour: string }[];
}

const PAD = 16;
const HEAD = 48;
const FOOT = 30;
const FONT = 'system-ui, sans-serif';

export function downloadPicture(name: string, canvas: HTMLCanvasElement, caption: Caption): void {
  picture(canvas, caption).toBlob((blob) => {
    if (blob) download(name, 'image/png', blob);
  });
}

function picture(canvas: HTMLCanvasElement, caption: Caption): HTMLCanvasElement {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.width / ratio, canvas.height / ratio];
  const out = document.createElement('canvas');
  out.width = Math.round((width + 2 * PAD) * ratio);
  out.height = Math.round((height + HEAD + FOOT) * ratio);
  const context = out.getContext('2d');
  if (!context) return canvas;
  context.scale(ratio, ratio);
  context.fillStyle = colour('--surface');
  context.fillRect(0, 0, width + 2 * PAD, height + HEAD + FOOT);
  context.textBaseline = 'middle';
  text(context, caption.title, PAD, 18, `600 14px ${FONT}`, '--text');
  text(context, caption.detail, PAD, 36, `12px ${FONT}`, '--muted');
  context.drawImage(canvas, PAD, HEAD, width, height);
  let x = PAD;
  for (const entry of caption.legend) {
    context.fillStyle = colour(entry.colour);
    context.fillRect(x, HEAD + height + 11, 10, 8);
    x = text(context, entry.text, x + 15, HEAD + height + FOOT / 2, `12px ${FONT}`, '--muted') + 14;
  }
  return out;
}

/** Writes a line; says where it ends. */
function text(context: CanvasRenderingContext2D, line: string, x: number, y: number, font: string, ink: string): number {
  context.font = font;
  context.fillStyle = colour(ink);
  context.fillText(line, x, y);
  return x + context.measureText(line).width;
}
