// Work in turns: drawing many charts is many short tasks, so that neither a key press nor a frame waits for all of them.

/** A task ends after this long, even if more is waiting. */
const BUDGET_MS = 10;

export class Turns {
  private pieces = new Map<object, () => void>();
  private waiting = false;

  constructor(
    private readonly now: () => number = () => performance.now(),
    private readonly later: (run: () => void) => void = (run) => void setTimeout(run),
  ) {}

  /** Does `work` soon. What the same owner still has waiting is replaced, and keeps its place. */
  add(owner: object, work: () => void): void {
    this.pieces.set(owner, work);
    this.schedule();
  }

  drop(owner: object): void {
    this.pieces.delete(owner);
  }

  private schedule(): void {
    if (this.waiting || this.pieces.size === 0) return;
    this.waiting = true;
    this.later(() => this.run());
  }

  private run(): void {
    this.waiting = false;
    const end = this.now() + BUDGET_MS;
    try {
      for (const [owner, work] of this.pieces) {
        this.pieces.delete(owner);
        work();
        if (this.now() >= end) break;
      }
    } finally {
      // One that fails does not take the others along.
      this.schedule();
    }
  }
}

export const turns = new Turns();
