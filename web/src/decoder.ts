/** The exported decoder in ONNX Runtime Web, on the processor: WebAssembly. */

import * as ort from "onnxruntime-web/wasm";

import type { Embedding } from "./embedding";
import { SeganyError } from "./errors";
import { fetchDecoder, fetchManifest, type Manifest, type SizeHW } from "./manifest";
import { labeledPoints, type MaskMode, type Prompt, wantedCandidates } from "./prompt";

export interface OpenOptions {
  /**
   * For all decoders of the page, from the first on. More than one work only where the page is cross-origin
   * isolated: served with `Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp`.
   * By default as many as the runtime sees fit.
   */
  readonly threads?: number;
}

export interface DecodeOptions {
  /** How many candidates; "auto" by default. */
  readonly masks?: MaskMode;
  /** Of the masks: the image's by default. A smaller one of the same proportions, as shown on a screen, is faster. */
  readonly sizeHW?: SizeHW;
}

/** Masks for one prompt, M candidates. */
export interface Prediction {
  /** M masks, H x W each, row by row: 1 on the object, 0 beside it. */
  readonly masks: readonly Uint8Array[];
  /** [M], the model's own estimate of each mask's IoU. */
  readonly scores: Float32Array;
  /** M times h x w logits in the square frame of the model's input: `maskLogits` of the next prompt. */
  readonly lowResLogits: readonly Float32Array[];
  /** The candidate with the highest score. */
  readonly best: number;
  /** Of the masks. */
  readonly sizeHW: SizeHW;
}

/**
 * Open the decoder of an export.
 *
 * @param manifestUrl of the `manifest.json` that `segany export` made; the decoder is beside it.
 * @throws SeganyError the files are not there, are no export, newer than this code, or do not belong together.
 */
export async function openDecoder(manifestUrl: string | URL, options: OpenOptions = {}): Promise<Decoder> {
  const url = new URL(manifestUrl, globalThis.location?.href);
  const manifest = await fetchManifest(url);
  const file = await fetchDecoder(manifest, url);
  if (options.threads !== undefined) ort.env.wasm.numThreads = options.threads;
  try {
    return new Decoder(manifest, await ort.InferenceSession.create(file, { executionProviders: ["wasm"] }));
  } catch (error) {
    throw new SeganyError(
      `ONNX Runtime Web ${ort.env.versions.web} cannot run ${manifest.files.decoder.path} of ${url}: ${error} ` +
        "Take a newer onnxruntime-web, or export the model again with a lower --opset.",
    );
  }
}

/** A decoder, ready to run; `openDecoder` makes them. It keeps nothing of the images it decodes. */
export class Decoder {
  constructor(
    readonly manifest: Manifest,
    private readonly session: ort.InferenceSession,
  ) {}

  /**
   * Masks for a prompt on an image.
   *
   * @throws SeganyError the embedding is another model's, or the prompt is wrong.
   */
  async decode(embedding: Embedding, prompt: Prompt, options: DecodeOptions = {}): Promise<Prediction> {
    const { manifest } = this;
    checkEmbedding(embedding, manifest);
    const { points, labels } = labeledPoints(prompt, embedding.sizeHW, manifest);
    const candidates = wantedCandidates(prompt, options.masks ?? "auto");
    const sizeHW = options.sizeHW ?? embedding.sizeHW;
    const side = manifest.low_res_size;
    const features = manifest.files.encoder.outputs.map(({ name }, index) => {
      const { data, shape } = embedding.features[index]!;
      return [name, new ort.Tensor("float32", data, [1, ...shape])] as const;
    });
    const outputs = await this.session.run({
      ...Object.fromEntries(features),
      points: new ort.Tensor("float32", points, [1, labels.length, 2]),
      labels: new ort.Tensor("int64", labels, [1, labels.length]),
      mask_logits: new ort.Tensor("float32", prompt.maskLogits ?? new Float32Array(side * side), [1, side, side]),
      has_mask: new ort.Tensor("bool", [prompt.maskLogits !== undefined], [1]),
      candidates: new ort.Tensor("int64", BigInt64Array.from(candidates, BigInt), [candidates.length]),
      size_hw: new ort.Tensor("int64", BigInt64Array.from(sizeHW, BigInt), [2]),
    });
    const scores = outputs.iou!.data as Float32Array;
    const logits = outputs.mask_logits_at_size!.data as Float32Array;
    return {
      masks: split(aboveZero(logits), candidates.length),
      scores,
      lowResLogits: split(outputs.low_res!.data as Float32Array, candidates.length),
      best: scores.indexOf(Math.max(...scores)),
      sizeHW,
    };
  }

  /** Give its memory back. */
  async close(): Promise<void> {
    await this.session.release();
  }
}

function aboveZero(logits: Float32Array): Uint8Array {
  const mask = new Uint8Array(logits.length);
  for (let i = 0; i < logits.length; i++) mask[i] = Number(logits[i]! > 0); // Uint8Array.from takes 30 times as long
  return mask;
}

function split<T extends Uint8Array | Float32Array>(values: T, count: number): T[] {
  const length = values.length / count;
  return Array.from({ length: count }, (_, i) => values.subarray(i * length, (i + 1) * length) as T);
}

function checkEmbedding(embedding: Embedding, { model, encoder_id, preprocessing, files }: Manifest): void {
  if (embedding.model !== model || embedding.encoderId !== encoder_id) {
    throw new SeganyError(
      `This embedding was made by ${embedding.model} (encoder ${embedding.encoderId}) and cannot be used with this ` +
        `decoder of ${model} (encoder ${encoder_id}). Embed the image again with the model of the decoder.`,
    );
  }
  const found = [embedding.preprocessing.input_size, ...embedding.features.map(({ shape }) => shape)];
  const names = files.encoder.outputs.map(({ name }) => name);
  const inputs = files.decoder.inputs.filter(({ name }) => names.includes(name));
  const expected = [preprocessing.input_size, ...inputs.map(({ shape }) => shape.slice(1))];
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    throw new SeganyError(
      `This embedding has features of another size: ${JSON.stringify(found)}, but the decoder takes ` +
        `${JSON.stringify(expected)}. Embed the image again with the model of the decoder.`,
    );
  }
  for (const { data, shape } of embedding.features) {
    const length = shape.reduce((product, axis) => product * axis, 1);
    if (data.length !== length) {
      throw new SeganyError(
        `A feature of this embedding has ${data.length} values, not ${length}. Read it again with readEmbedding.`,
      );
    }
  }
}
