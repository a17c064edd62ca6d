/** The exported decoder in a worker of the page, for when the server is far or busy. */

import type { PredictPrompt } from "../api/live_messages";
import type { DecodeReply, DecodeRequest } from "./decoder.worker";
import type { Answer } from "./predictor";
import { dequantized } from "./quantization";

type LocalAnswer = Omit<Answer, "latencyMs">;

const MAX_TOKENS = 64;

export class LocalDecoder {
  private worker: Worker | null = null;
  private readonly ready = new Set<string>();
  private readonly preparing = new Set<string>();
  /** [candidates] of the last predictions, those of the server too. */
  private readonly logits = new Map<string, () => readonly Float32Array[]>();
  private waiting: ((reply: DecodeReply) => void)[] = [];
  private isMissing = false;

  /** Whether it can decode for this item now. */
  has(item: string): boolean {
    return this.ready.has(item);
  }

  /** Load the decoder and the embedding of an item. */
  prepare(item: string): void {
    if (this.isMissing || this.preparing.has(item)) return;
    this.preparing.add(item);
    void this.call({ type: "prepare", item }).then((reply) => {
      if (reply.type === "ready") this.ready.add(item);
      else this.preparing.delete(item);
      if (reply.type === "missing") this.isMissing = true;
    });
  }

  /** null: it cannot. */
  async decode(prompt: PredictPrompt, multimask: boolean): Promise<LocalAnswer | null> {
    const maskLogits = prompt.refine ? (this.logits.get(prompt.refine.token)?.()[prompt.refine.candidate] ?? null) : null;
    if (prompt.refine && !maskLogits) return null; // too long ago: without its logits the mask would be another one
    const reply = await this.call({ type: "decode", prompt, multimask, maskLogits });
    if (reply.type !== "decoded") return null;
    const token = crypto.randomUUID();
    this.keep(token, () => reply.lowResLogits);
    return { token, scores: reply.scores, side: reply.side, logits: reply.logits };
  }

  /** A prediction of the server, which the next one here may feed back: as exactly as it was sent. */
  remember(token: string, logits: Int8Array, side: number): void {
    this.keep(token, () => {
      const count = logits.length / side ** 2;
      return Array.from({ length: count }, (_, i) => dequantized(logits.subarray(i * side ** 2, (i + 1) * side ** 2)));
    });
  }

  private keep(token: string, logits: () => readonly Float32Array[]): void {
    this.logits.set(token, logits);
    if (this.logits.size > MAX_TOKENS) this.logits.delete(this.logits.keys().next().value!);
  }

  private call(request: DecodeRequest): Promise<DecodeReply> {
    if (!this.worker) {
      this.worker = new Worker(new URL("./decoder.worker.ts", import.meta.url), { type: "module" });
      this.worker.onmessage = ({ data }: MessageEvent<DecodeReply>) => this.waiting.shift()?.(data);
      this.worker.onerror = () => this.waiting.shift()?.({ type: "missing", message: "The worker failed." });
    }
    const { worker } = this;
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      worker.postMessage(request);
    });
  }
}
