// Rows that do not jump under the pointer. Pure.

export interface Steady<T> {
  row: T;
  /** Was there, is not any more; kept in its place while somebody reads. */
  gone: boolean;
}

/** Of those that ended, so many stay: a pointer may rest on a list for hours. */
const MOST_GONE = 500;

/**
 * The rows to show: sorted as they come, or, while somebody `reading`s, in the order that is on the screen, with
 * new ones at the end and ended ones marked instead of removed.
 */
export function steady<T>(shown: readonly Steady<T>[], rows: readonly T[], key: (row: T) => string, reading: boolean): Steady<T>[] {
  if (!reading) return rows.map((row) => ({ row, gone: false }));
  const fresh = new Map(rows.map((row) => [key(row), row]));
  const kept = shown.map(({ row }) => {
    const now = fresh.get(key(row));
    fresh.delete(key(row));
    return now === undefined ? { row, gone: true } : { row: now, gone: false };
  });
  let tooMany = kept.filter((one) => one.gone).length - MOST_GONE;
  const left = tooMany > 0 ? kept.filter((one) => !one.gone || (tooMany -= 1) < 0) : kept;
  return [...left, ...[...fresh.values()].map((row) => ({ row, gone: false }))];
}
