// Tables as CSV (RFC 4180), safe to open in a spreadsheet.

export type Cell = string | number | null | undefined;

/** Spreadsheets run what begins like a formula; a leading apostrophe makes it text. */
function cell(value: Cell): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'number') return Number.isFinite(value) ? String(value) : '';
  const safe = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function csv(header: readonly string[], rows: Iterable<readonly Cell[]>): string {
  const lines = [header.map(cell).join(',')];
  for (const row of rows) lines.push(row.map(cell).join(','));
  return lines.join('\r\n') + '\r\n';
}

/** Hands a file to the browser. */
export function download(name: string, type: string, content: string | Blob): void {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function downloadCsv(name: string, header: readonly string[], rows: Iterable<readonly Cell[]>): void {
  // The byte order mark tells spreadsheets that this is UTF-8.
  download(name, 'text/csv;charset=utf-8', '\ufeff' + csv(header, rows));
}
