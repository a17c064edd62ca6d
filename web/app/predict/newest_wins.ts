/** One request in flight, the newest wins: what is asked meanwhile replaces what waits, and stale answers are dropped. */

const LATE_AFTER_MS = 5_000;

interface InFlight<Request> {
  readonly seq: number;
  readonly request: Request;
  /** Nobody waits for it any more. */
  dropped: boolean;
  /** It takes so long that the answer may never come: the next request does not wait for it. */
  late: boolean;
}

export class NewestWins<Request, Answer> {
  private inFlight: InFlight<Request> | null = null;
  private waiting: Request | null = null;
  private lastSeq = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly send: (seq: number, request: Request) => boolean,
    private readonly show: (request: Request, answer: Answer) => void,
  ) {}

  get isBusy(): boolean {
    return this.inFlight !== null;
  }

  ask(request: Request): void {
    if (this.inFlight && !this.inFlight.late) {
      this.waiting = request;
      return;
    }
    const seq = ++this.lastSeq;
    if (!this.send(seq, request)) return;
    const sent = { seq, request, dropped: false, late: false };
    this.inFlight = sent;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      sent.late = true; // it is still shown if it comes before another one is asked for
      if (this.waiting !== null) this.finished(seq);
    }, LATE_AFTER_MS);
  }

  /** Want nothing any more: an answer on its way will not be shown. */
  cancel(): void {
    this.waiting = null;
    if (this.inFlight) this.inFlight.dropped = true;
  }

  /** An answer came. One to an older request is ignored. */
  answer(seq: number, answer: Answer): void {
    const { inFlight } = this;
    if (inFlight?.seq !== seq) return;
    this.finished(seq, () => {
      if (!inFlight.dropped) this.show(inFlight.request, answer);
    });
  }

  /** There will be no answer. */
  failed(seq: number): void {
    this.finished(seq);
  }

  /** Nothing is in flight any more, such as after the connection was lost. */
  reset(): void {
    if (this.inFlight) this.finished(this.inFlight.seq);
  }

  private finished(seq: number, then?: () => void): void {
    if (this.inFlight?.seq !== seq) return;
    clearTimeout(this.timer);
    this.inFlight = null;
    then?.();
    const next = this.waiting;
    this.waiting = null;
    if (next !== null && !this.inFlight) this.ask(next);
  }
}
