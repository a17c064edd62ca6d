/** Values of the API. To be replaced by what openapi-typescript generates. */

export type ItemState = "todo" | "in_progress" | "done" | "skipped";
export type Source = "manual" | "assisted" | "auto" | "imported";
export type PromptKind = "point" | "box" | "mask" | "brush" | "polygon" | "edit" | "accept";

export interface Attribute {
  name: string;
  type: "text" | "number" | "choice";
  choices?: string[];
}

export interface Label {
  id: number;
  name: string;
  color: string;
  hotkey?: string;
  archived: boolean;
  attributes: Attribute[];
}

export interface Model {
  name: string;
  state: "loading" | "ready" | "failed";
  message: string;
  /** Whether there is an export of its decoder, with which the page can decode itself. */
  decoder?: boolean;
  preprocessing?: { input_size: number; resize: "longest_side" | "square" };
}

export interface Project {
  id: string;
  name: string;
  labels: Label[];
  label_version: number;
  model: Model;
  counts: Record<ItemState, number>;
  settings: Record<string, unknown>;
}

export interface Session {
  csrf: string;
  author: string;
  version: string;
}

export interface ItemSummary {
  id: string;
  name: string;
  width: number;
  height: number;
  state: ItemState;
  split: string | null;
  objects: number;
  updated_at: string;
  /** Content id of the pixels. */
  image?: string;
}

export type AttributeValues = Record<string, string | number>;

export interface ObjectState {
  id: string;
  revision: string;
  parent: string | null;
  label_id: number | null;
  attributes: AttributeValues;
  counts: string;
  box_xyxy: [number, number, number, number];
  area: number;
  z: number;
  source: Source;
  author: string;
  model_version: string | null;
  deleted: boolean;
  created_at: string;
}

export interface Item extends ItemSummary {
  position?: number;
  total?: number;
  previous_id: string | null;
  next_id: string | null;
}

/** GET /api/items/{id}: `objects` is the list there, the count in a summary. */
export type ItemWithObjects = Omit<Item, "objects"> & { objects: ObjectState[] };

export interface Proposal {
  counts: string;
  box_xyxy: [number, number, number, number];
  predicted_iou: number;
  stability_score: number;
  area: number;
}

export interface PromptEvent {
  id: string;
  sequence: number;
  kind: PromptKind;
  payload: Record<string, unknown>;
  model_version: string | null;
  candidate: number | null;
  latency_ms: number | null;
}

export interface Change {
  object: string;
  revision: string;
  base: string | null;
  label_id: number | null;
  attributes: AttributeValues;
  counts: string;
  z: number;
  source: Source;
  deleted: boolean;
  active_ms: number;
  prompt_events: PromptEvent[];
}

export interface Batch {
  batch: string;
  changes: Change[];
}

export interface SaveResult {
  object: string;
  revision: string;
  status: "saved" | "known";
}

export interface SaveConflict {
  object: string;
  yours: string;
  theirs: ObjectState;
}

export interface Job {
  id: string;
  kind: string;
  item?: string | null;
  state: "queued" | "running" | "done" | "failed" | "canceled";
  done: number;
  total: number;
  unit: string;
  message: string;
  result: Record<string, unknown> | null;
  created_at: string;
}

export interface Skipped {
  name: string;
  message: string;
}

export type ExchangeFormat = "coco" | "yolo-seg" | "labelme" | "sa-1b" | "label-maps" | "project";

export interface ItemQuery {
  offset: number;
  limit: number;
  state?: ItemState;
  label?: number;
  q?: string;
  sort?: string;
}

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

export type LiveUp =
  | { type: "open"; item: string }
  | ({ type: "predict"; seq: number; multimask: boolean } & PredictPrompt)
  | ({ type: "exact"; seq: number; candidate: number | null } & PredictPrompt);

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

export type LiveDown =
  | PredictionHeader
  | ExactMask
  | { type: "error"; seq?: number; code?: string; message: string }
  | { type: "busy"; seq: number }
  | { type: "item"; id: string; embedding: "ready" | "computing" | "failed" }
  | { type: "job"; job: Job }
  | ({ type: "model" } & Model)
  | { type: "items_changed" };
