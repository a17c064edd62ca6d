/** Exported models of segany in a browser: an embedding and a prompt to masks. */

export { type DecodeOptions, Decoder, openDecoder, type OpenOptions, type Prediction } from "./decoder";
export { type Embedding, type Feature, readEmbedding, widenFloat16 } from "./embedding";
export { SeganyError } from "./errors";
export type { Manifest, Preprocessing, SizeHW } from "./manifest";
export { labeledPoints, type MaskMode, type Prompt } from "./prompt";
