/** Predictions for prompts: by the server, or by the page itself where the server is slow or busy. */

import { signal } from "@preact/signals";

import type { Live, LiveMessage, Prediction } from "../api/live";
import type { ExactMask, PredictPrompt, Step } from "../api/live_messages";
import type { LocalDecoder } from "./local_decoder";
import { NewestWins } from "./newest_wins";

export interface Ask {
  readonly prompt: PredictPrompt;
  /** The predictions that led to the prompt, oldest first. */
  readonly steps: readonly Step[];
  readonly multimask: boolean;
  readonly show: (answer: Answer) => void;
  readonly askedAt: number;
}

export interface Answer {
  readonly token: string;
  readonly scores: readonly number[];
  readonly side: number;
  /** [candidates, side, side] */
  readonly logits: Int8Array;
  /** From the request to the answer. */
  readonly latencyMs: number;
}

const SLOW_MS = 60;
/** Of a connected server, which may have to load the model first. */
const EXACT_TIMEOUT_MS = 30_000;
const LATENCIES = 15;

/** A mask that is to be stored. */
interface Exact {
  readonly prompt: PredictPrompt;
  readonly candidate: number | null;
  readonly steps: readonly Step[];
  readonly resolve: (mask: ExactMask | null) => void;
  timer: ReturnType<typeof setTimeout> | undefined;
}

export class Predictor {
  /** Median of the last predictions. */
  readonly latencyMs = signal<number | null>(null);
  private readonly queue = new NewestWins<Ask, Answer>(
    (seq, ask) => this.send(seq, ask),
    (ask, answer) => ask.show(answer),
  );
  private readonly exacts = new Map<number, Exact>();
  private latencies: number[] = [];
  private lastExact = 0;
  private sent: { seq: number; ask: Ask } | null = null;
  private busyUntil = 0;

  constructor(
    private readonly live: Live,
    private readonly local: LocalDecoder | null,
    private readonly canDecodeHere: () => boolean,
  ) {
    live.listen((message) => this.receive(message));
    live.connected.subscribe((connected) => {
      for (const [seq, exact] of this.exacts) {
        if (connected) this.sendExact(seq, exact, true); // the predictions of the connection before are not known
        else clearTimeout(exact.timer);
      }
      if (!connected) this.queue.reset();
    });
  }

  /** @param steps the predictions that led to the prompt, oldest first */
  ask(prompt: PredictPrompt, multimask: boolean, show: (answer: Answer) => void, steps: readonly Step[] = []): void {
    this.queue.ask({ prompt, steps, multimask, show, askedAt: performance.now() });
  }

  cancel(): void {
    this.queue.cancel();
  }

  /**
   * The mask at the size of the image, bit for bit as `ImagePredictor` has it. Without a connection it comes with the
   * next one. null: the server cannot make it.
   * @param steps the predictions that led to the prompt, oldest first
   */
  exact(prompt: PredictPrompt, candidate: number | null, steps: readonly Step[]): Promise<ExactMask | null> {
    const seq = --this.lastExact; // negative: never that of a prediction
    return new Promise((resolve) => {
      const exact: Exact = { prompt, candidate, steps, resolve, timer: undefined };
      this.exacts.set(seq, exact);
      this.sendExact(seq, exact, false);
    });
  }

  private sendExact(seq: number, exact: Exact, isAgain: boolean): void {
    const { prompt, candidate, steps } = exact;
    const how = isAgain ? { ...prompt, refine: null, steps } : { ...prompt, steps: [] };
    if (!this.live.send({ type: "exact", seq, candidate, ...how })) return;
    clearTimeout(exact.timer);
    exact.timer = setTimeout(() => this.finishExact(seq, null), EXACT_TIMEOUT_MS);
  }

  private finishExact(seq: number, mask: ExactMask | null): void {
    const exact = this.exacts.get(seq);
    this.exacts.delete(seq);
    clearTimeout(exact?.timer);
    exact?.resolve(mask);
  }

  private send(seq: number, ask: Ask): boolean {
    this.sent = { seq, ask };
    const isSlow = (this.latencyMs.peek() ?? 0) > SLOW_MS || performance.now() < this.busyUntil || !this.live.connected.peek();
    if (isSlow && this.local?.has(ask.prompt.item)) {
      void this.local.decode(ask.prompt, ask.multimask).then((answer) =>
        answer ? this.queue.answer(seq, { ...answer, latencyMs: performance.now() - ask.askedAt }) : this.queue.failed(seq),
      );
      return true;
    }
    const steps = ask.prompt.refine ? [] : ask.steps;
    return this.live.send({ type: "predict", seq, multimask: ask.multimask, ...ask.prompt, steps });
  }

  private receive(message: LiveMessage): void {
    if (message.type === "prediction") this.predicted(message);
    else if (message.type === "mask") this.finishExact(message.seq, message);
    else if (message.type === "busy") {
      this.busyUntil = performance.now() + 2_000;
      this.queue.failed(message.seq);
    } else if (message.type === "error" && message.seq !== undefined) {
      const exact = this.exacts.get(message.seq);
      if (exact && message.code === "unknown_token") this.sendExact(message.seq, exact, true);
      else this.finishExact(message.seq, null);
      const sent = this.sent;
      this.queue.failed(message.seq);
      if (message.code === "unknown_token" && sent?.seq === message.seq) {
        this.queue.ask({ ...sent.ask, prompt: { ...sent.ask.prompt, refine: null } });
      }
    }
  }

  private predicted({ seq, token, scores, side, logits }: Prediction): void {
    if (this.sent?.seq !== seq) return;
    const latencyMs = performance.now() - this.sent.ask.askedAt;
    this.latencies = [...this.latencies, latencyMs].slice(-LATENCIES);
    this.latencyMs.value = [...this.latencies].sort((a, b) => a - b)[Math.floor(this.latencies.length / 2)]!;
    if (this.latencyMs.value > SLOW_MS && this.canDecodeHere()) this.local?.prepare(this.sent.ask.prompt.item);
    this.queue.answer(seq, { token, scores, side, logits, latencyMs });
  }
}
