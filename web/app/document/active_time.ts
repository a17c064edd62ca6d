/** How long a person worked on something: time between movements, without pauses. */

const PAUSE_MS = 5_000;

export class ActiveTime {
  private total = 0;
  private last: number | null = null;

  /** The pointer or a key moved. */
  touch(now = performance.now()): void {
    if (this.last !== null) this.total += Math.min(now - this.last, PAUSE_MS);
    this.last = now;
  }

  /** Milliseconds since it was last taken. */
  take(): number {
    const total = this.total;
    this.total = 0;
    return total;
  }
}
