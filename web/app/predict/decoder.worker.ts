/** Runs the exported decoder beside the page, so that it stays responsive. Requests are answered in order. */

import { Decoder, type Embedding, openDecoder, readEmbedding } from "../../src";
import { type ApiError, getEmbedding } from "../api/client";
import type { PredictPrompt } from "../api/live_messages";
import { quantized } from "./quantization";

export type DecodeRequest =
  | { readonly type: "prepare"; readonly item: string }
  | { readonly type: "decode"; readonly prompt: PredictPrompt; readonly multimask: boolean; readonly maskLogits: Float32Array | null };

export type DecodeReply =
  | { readonly type: "ready" }
  | { readonly type: "waiting" }
  | { readonly type: "missing"; readonly message: string }
  | {
      readonly type: "decoded";
      readonly scores: number[];
      readonly side: number;
      readonly logits: Int8Array;
      readonly lowResLogits: Float32Array[];
    };

const MANIFEST = "/api/model/decoder/manifest.json";
const MAX_EMBEDDINGS = 3;

let decoder: Promise<Decoder> | null = null;
const embeddings = new Map<string, Embedding>();

async function prepare(item: string): Promise<DecodeReply> {
  decoder ??= openDecoder(new URL(MANIFEST, self.location.origin));
  await decoder;
  const data = await getEmbedding(item).catch((error: ApiError) => {
    if (error.status === 409) throw error; // there is no model
    return null;
  });
  if (!data) return { type: "waiting" };
  embeddings.set(item, readEmbedding(data));
  if (embeddings.size > MAX_EMBEDDINGS) embeddings.delete(embeddings.keys().next().value!);
  return { type: "ready" };
}

async function decode({ prompt, multimask, maskLogits }: Extract<DecodeRequest, { type: "decode" }>): Promise<DecodeReply> {
  const embedding = embeddings.get(prompt.item);
  if (!decoder || !embedding) return { type: "waiting" };
  const side = (await decoder).manifest.low_res_size;
  const { lowResLogits, scores } = await (await decoder).decode(
    embedding,
    {
      pointsXY: prompt.points,
      labels: prompt.labels,
      ...(prompt.box ? { boxXYXY: prompt.box } : {}),
      ...(maskLogits ? { maskLogits } : {}),
    },
    { masks: multimask ? "multi" : "single", sizeHW: [side, side] }, // the page needs the logits alone
  );
  const logits = new Int8Array(lowResLogits.length * side * side);
  lowResLogits.forEach((values, i) => logits.set(quantized(values), i * side * side));
  return { type: "decoded", scores: [...scores], side, logits, lowResLogits: [...lowResLogits] };
}

let queue: Promise<void> = Promise.resolve();
self.onmessage = ({ data }: MessageEvent<DecodeRequest>) => {
  queue = queue
    .then(() => (data.type === "prepare" ? prepare(data.item) : decode(data)))
    .catch((error: unknown): DecodeReply => ({ type: "missing", message: String(error) }))
    .then((reply) => self.postMessage(reply));
};
