/** Logits in int8, as the server sends them. */

/** Logits of this size and more are as good as certain; int8 has no room for them. */
const QUANTIZATION = 8 / 127;

/** Rounded away from zero: its sign is the mask. */
export function quantized(logits: Float32Array): Int8Array {
  return Int8Array.from(logits, (value) => {
    const scaled = value / QUANTIZATION;
    return Math.max(-127, Math.min(127, scaled > 0 ? Math.ceil(scaled) : Math.floor(scaled)));
  });
}

export function dequantized(logits: Int8Array): Float32Array {
  return Float32Array.from(logits, (value) => value * QUANTIZATION);
}
