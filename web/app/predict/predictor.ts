/** Predictions for prompts: by the server, or by the page itself where the server is slow or busy. */

import { signal } from "@preact/signals";

import type { Live, LiveMessage, Prediction } from "../api/live";
import type { ExactMask, LiveUp, PredictPrompt } from "../api/live_messages";
import type { LocalDecoder } from "./local_decoder";
import { NewestWins } from "./newest_wins";

export interface Ask {
  readonly prompt: PredictPrompt;
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
const EXACT_TIMEOUT_MS = 5_000;
const LATENCIES = 15;
/** Every so often a prediction goes to the server though the page is faster, to see whether that is still so. */
const PROBE_EVERY = 16;
const MAX_TRIES = 20;
const RETRY_MS = 50;
const MAX_TOKENS = 64;

interface Made {
  readonly prompt: PredictPrompt;
  readonly multimask: boolean;
}

export class Predictor {
  /** Median of the last predictions of the server. */
  readonly latencyMs = signal<number | null>(null);
  private readonly queue = new NewestWins<Ask, Answer>(
    (seq, ask) => this.send(seq, ask),
    (ask, answer) => ask.show(answer),
  );
  private readonly exacts = new Map<number, (mask: ExactMask | null) => void>();
  /** Predictions that are repeated by the server: the token of the answer, "busy" or null. */
  private readonly repeats = new Map<number, (token: string | null) => void>();
  /** What the predictions made here were made from, and those of them that the server has repeated. */
  private readonly madeHere = new Map<string, Made>();
  private readonly serverTokens = new Map<string, string>();
  private readonly latencies = { server: new Median(), here: new Median() };
  private madeSinceProbe = 0;
  private hasAskedForDecoder = false;
  private lastSeq = 0;
  private sent: { seq: number; ask: Ask } | null = null;
  private busyUntil = 0;

  constructor(
    private readonly live: Live,
    private readonly local: LocalDecoder | null,
    private readonly canDecodeHere: () => boolean,
  ) {
    live.listen((message) => this.receive(message));
    live.connected.subscribe((connected) => {
      if (connected) return;
      this.queue.reset();
      for (const resolve of [...this.exacts.values(), ...this.repeats.values()]) resolve(null);
      this.exacts.clear();
      this.repeats.clear();
      this.serverTokens.clear(); // they were those of the connection
      this.hasAskedForDecoder = false;
    });
  }

  ask(prompt: PredictPrompt, multimask: boolean, show: (answer: Answer) => void): void {
    this.queue.ask({ prompt, multimask, show, askedAt: performance.now() });
  }

  cancel(): void {
    this.queue.cancel();
  }

  /** The mask at the size of the image, bit for bit as `ImagePredictor` has it. null: the server does not answer. */
  async exact(prompt: PredictPrompt, candidate: number | null): Promise<ExactMask | null> {
    const served = await this.asOfServer(prompt);
    if (!served) return null;
    return this.request(this.exacts, (seq) => ({ type: "exact", seq, candidate, ...served }));
  }

  /** The prompt with a prediction of the server in place of one that was made here. null: it does not answer. */
  private async asOfServer(prompt: PredictPrompt): Promise<PredictPrompt | null> {
    const { refine } = prompt;
    const made = refine && this.madeHere.get(refine.token);
    if (!refine || !made) return prompt;
    let token = this.serverTokens.get(refine.token) ?? null;
    if (!token) {
      const earlier = await this.asOfServer(made.prompt);
      if (!earlier) return null;
      for (let tries = 0; !token && tries < MAX_TRIES; tries++) {
        if (tries) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        token = await this.request(this.repeats, (seq) => ({ type: "predict", seq, multimask: made.multimask, ...earlier }));
      }
      if (!token) return null;
      this.serverTokens.set(refine.token, token);
    }
    return { ...prompt, refine: { token, candidate: refine.candidate } };
  }

  private request<T>(waiting: Map<number, (value: T | null) => void>, message: (seq: number) => LiveUp): Promise<T | null> {
    const seq = --this.lastSeq; // negative: never that of a prediction to be shown
    return new Promise((resolve) => {
      const finish = (value: T | null): void => {
        waiting.delete(seq);
        clearTimeout(timer);
        resolve(value);
      };
      const timer = setTimeout(() => finish(null), EXACT_TIMEOUT_MS);
      waiting.set(seq, finish);
      if (!this.live.send(message(seq))) finish(null);
    });
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
    if (!this.decodesHere(ask.prompt.item)) {
      return this.live.send({ type: "predict", seq, multimask: ask.multimask, ...ask.prompt });
    }
    void this.local!.decode(ask.prompt, ask.multimask).then((answer) => {
      if (!answer) {
        this.queue.failed(seq);
        return;
      }
      const latencyMs = performance.now() - ask.askedAt;
      this.latencies.here.add(latencyMs);
      this.madeHere.set(answer.token, { prompt: ask.prompt, multimask: ask.multimask });
      if (this.madeHere.size > MAX_TOKENS) this.madeHere.delete(this.madeHere.keys().next().value!);
      this.queue.answer(seq, { ...answer, latencyMs });
    });
    return true;
  }

  private receive(message: LiveMessage): void {
    if (message.type === "prediction") this.predicted(message);
    else if (message.type === "mask") this.exacts.get(message.seq)?.(message);
    else if (message.type === "busy") {
      this.repeats.get(message.seq)?.(null);
      if (message.seq > 0) this.busyUntil = performance.now() + 2_000;
      this.queue.failed(message.seq);
    } else if (message.type === "error" && message.seq !== undefined) {
      this.exacts.get(message.seq)?.(null);
      this.repeats.get(message.seq)?.(null);
      const sent = this.sent;
      this.queue.failed(message.seq);
      if (message.code === "unknown_token" && sent?.seq === message.seq) {
        this.queue.ask({ ...sent.ask, prompt: { ...sent.ask.prompt, refine: null } });
      }
    }
  }

  private predicted({ seq, token, scores, side, logits }: Prediction): void {
    this.repeats.get(seq)?.(token);
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
