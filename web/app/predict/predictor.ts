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
/** Every so often a prediction goes to the server though the page is faster, to see whether that is still so. */
const PROBE_EVERY = 16;

/** A mask that is to be stored. */
interface Exact {
  readonly prompt: PredictPrompt;
  readonly candidate: number | null;
  readonly steps: readonly Step[];
  readonly resolve: (mask: ExactMask | null) => void;
  timer: ReturnType<typeof setTimeout> | undefined;
}

export class Predictor {
  /** Median of the last predictions of the server. */
  readonly latencyMs = signal<number | null>(null);
  private readonly queue = new NewestWins<Ask, Answer>(
    (seq, ask) => this.send(seq, ask),
    (ask, answer) => ask.show(answer),
  );
  private readonly exacts = new Map<number, Exact>();
  private readonly latencies = { server: new Median(), here: new Median() };
  private madeSinceProbe = 0;
  private hasAskedForDecoder = false;
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
      if (connected) return;
      this.queue.reset();
      this.hasAskedForDecoder = false;
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

  /** Whether to decode here: the server is away, busy, or so slow that the page is faster. */
  private decodesHere(item: string): boolean {
    if (!this.local?.has(item)) return false;
    if (!this.live.connected.peek() || performance.now() < this.busyUntil) return true;
    const server = this.latencies.server.value ?? 0;
    if (server <= SLOW_MS || (this.latencies.here.value ?? 0) >= server) return false;
    this.madeSinceProbe = (this.madeSinceProbe + 1) % PROBE_EVERY;
    return this.madeSinceProbe !== 0;
  }

  private send(seq: number, ask: Ask): boolean {
    this.sent = { seq, ask };
    if (this.decodesHere(ask.prompt.item)) {
      void this.local!.decode(ask.prompt, ask.multimask).then((answer) => {
        if (!answer) {
          this.queue.failed(seq);
          return;
        }
        const latencyMs = performance.now() - ask.askedAt;
        this.latencies.here.add(latencyMs);
        this.queue.answer(seq, { ...answer, latencyMs });
      });
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
    this.latencies.server.add(latencyMs);
    this.latencyMs.value = this.latencies.server.value;
    if (this.latencyMs.value! > SLOW_MS) this.prepareHere(this.sent.ask.prompt.item);
    this.local?.remember(token, logits, side);
    this.queue.answer(seq, { token, scores, side, logits, latencyMs });
  }

  private prepareHere(item: string): void {
    if (this.canDecodeHere()) this.local?.prepare(item);
    else if (!this.hasAskedForDecoder) this.hasAskedForDecoder = this.live.send({ type: "want_decoder" });
  }
}

/** Of the last values. */
class Median {
  value: number | null = null;
  private values: number[] = [];

  add(value: number): void {
    this.values = [...this.values, value].slice(-LATENCIES);
    this.value = [...this.values].sort((a, b) => a - b)[Math.floor(this.values.length / 2)]!;
  }
}
