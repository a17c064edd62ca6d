/** An image as a model sees it, from the file that `Embedding.save` writes. */

import { SeganyError } from "./errors";
import type { Preprocessing, SizeHW } from "./manifest";

/** One array of an embedding. */
export interface Feature {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

/** `segany.Embedding`: made once by the image encoder, prompted as often as wanted. */
export interface Embedding {
  readonly features: readonly Feature[];
  /** Of the original image in pixels. */
  readonly sizeHW: SizeHW;
  readonly preprocessing: Preprocessing;
  readonly model: string;
  /** Digest of the weights of the image encoder that made it. */
  readonly encoderId: string;
  /** sha256 of the image's size and pixels. */
  readonly contentId: string;
}

const FORMAT_VERSION = 2;
const HEADER_KEY = "segany_embedding";

interface TensorHeader {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/**
 * Read an embedding file: safetensors, of float32 or, at half the size, of float16.
 *
 * Features become float32 here, once, so that a click does not pay for it.
 *
 * @throws SeganyError it is damaged, no embedding, or newer than this code.
 */
export function readEmbedding(file: ArrayBuffer): Embedding {
  const { tensors, metadata, start } = readHeader(file);
  const text = metadata?.[HEADER_KEY];
  if (text === undefined) {
    throw new SeganyError("This file is no embedding. Give one that Embedding.save wrote.");
  }
  const header = JSON.parse(text);
  if (header.format_version !== FORMAT_VERSION) {
    throw new SeganyError(
      `The embedding has format version ${header.format_version}; this page reads version ${FORMAT_VERSION}. ` +
        "Load a newer page, or embed the image again.",
    );
  }
  const features = Object.keys(tensors).map((_, index) => readFeature(file, start, tensors[`features.${index}`]));
  return {
    features,
    sizeHW: header.size_hw,
    preprocessing: header.preprocessing,
    model: header.model,
    encoderId: header.encoder_id,
    contentId: header.content_id,
  };
}

/** The JSON at the start of a safetensors file, and where the arrays begin. */
function readHeader(file: ArrayBuffer) {
  try {
    const length = Number(new DataView(file).getBigUint64(0, true));
    const text = new TextDecoder().decode(new Uint8Array(file, 8, length));
    const { __metadata__: metadata, ...tensors } = JSON.parse(text);
    return {
      tensors: tensors as Record<string, TensorHeader>,
      metadata: metadata as Record<string, string> | undefined,
      start: 8 + length,
    };
  } catch {
    throw new SeganyError("The embedding is damaged, or none. Fetch it again, or embed the image again.");
  }
}

function readFeature(file: ArrayBuffer, start: number, tensor: TensorHeader | undefined): Feature {
  const [first, last] = tensor?.data_offsets ?? [0, 0];
  const bytes = file.slice(start + first, start + last); // a copy: views of its numbers must start where they may
  const size = { F16: 2, F32: 4 }[tensor?.dtype ?? ""] ?? 0;
  const expected = tensor ? size * tensor.shape.reduce((product, side) => product * side, 1) : NaN;
  if (tensor === undefined || size === 0 || bytes.byteLength !== expected) {
    throw new SeganyError(
      `The embedding is damaged: a feature has ${bytes.byteLength} bytes, not ${expected}. ` +
        "Fetch it again, or embed the image again.",
    );
  }
  const data = size === 2 ? widenFloat16(new Uint16Array(bytes)) : new Float32Array(bytes);
  return { data, shape: tensor.shape };
}

/** float16, given as its bits, to float32. Exact. `Float16Array` would do it, but not all browsers have one. */
export function widenFloat16(halves: Uint16Array): Float32Array {
  const values = new Float32Array(halves.length);
  const words = new Uint32Array(values.buffer);
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i]!;
    const sign = (half & 0x8000) << 16;
    // Exponent and mantissa in their places of a float32 are a number 2^112 too small, subnormal ones included.
    words[i] = (half & 0x7fff) << 13;
    values[i]! *= 2 ** 112;
    words[i]! |= (half & 0x7c00) === 0x7c00 ? sign | 0x7f800000 : sign; // infinite, or no number
  }
  return values;
}
