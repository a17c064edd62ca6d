/** Messages of the WebSocket, which OpenAPI does not describe. */

import type { Job, Model } from "./types";

export interface Refine {
  token: string;
  candidate: number;
}

export interface PredictPrompt {
  item: string;
  points: [number, number][];
  labels: (0 | 1)[];
  box: [number, number, number, number] | null;
  refine: Refine | null;
}

/** A prediction that was shown, and the candidate whose logits were fed back into the next one. */
export interface Step extends Omit<PredictPrompt, "item" | "refine"> {
  multimask: boolean;
  candidate: number;
}

/** `steps`, oldest first, stand for `refine` where the server does not have that prediction: it makes them again. */
interface Asked extends PredictPrompt {
  seq: number;
  steps: readonly Step[];
}

export type LiveUp =
  | { type: "open"; item: string }
  | { type: "want_decoder" }
  | ({ type: "predict"; multimask: boolean } & Asked)
  | ({ type: "exact"; candidate: number | null } & Asked);

export interface PredictionHeader {
  type: "prediction";
  seq: number;
  token: string;
  scores: number[];
  candidates: number;
  latency_ms: number;
  side: number;
  quantization: number;
}

export interface ExactMask {
  type: "mask";
  seq: number;
  counts: string;
  score: number;
  area: number;
  box_xyxy: [number, number, number, number];
}

export interface EmbeddingNews {
  type: "item";
  id: string;
  embedding: "ready" | "computing" | "failed";
  /** Why it failed. */
  message?: string;
}

export type LiveDown =
  | PredictionHeader
  | ExactMask
  | { type: "error"; seq?: number; code?: string; message: string }
  | { type: "busy"; seq: number }
  | EmbeddingNews
  | { type: "job"; job: Job }
  | ({ type: "model" } & Model)
  | { type: "items_changed" };
