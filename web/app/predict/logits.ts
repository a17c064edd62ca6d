/** Low-resolution logits of the mask decoder, in the frame of the model's input. */

import { type Box, growBox, type XY } from "../geometry";
import { type Mask, maskFromRegion } from "../mask/mask";

export type Resize = "longest_side" | "square";

/** What a pixel coordinate of the image is multiplied with to be 0 to 1 in the model's input. */
export function inputScale(width: number, height: number, inputSize: number, resize: Resize): XY {
  if (resize === "square") return [1 / width, 1 / height];
  const scale = inputSize / Math.max(width, height);
  // The resized image has whole pixels, as in preprocessing; the rest of the input is padding.
  const [w, h] = [Math.max(1, Math.floor(width * scale + 0.5)), Math.max(1, Math.floor(height * scale + 0.5))];
  return [w / inputSize / width, h / inputSize / height];
}

/** The mask of one candidate at the size of the image, by bilinear interpolation: what the shader shows. */
export function maskFromLogits(logits: Int8Array, side: number, scale: XY, width: number, height: number): Mask {
  const box = boxOfLogits(logits, side, scale, width, height);
  const [x0, y0, x1, y1] = box;
  const rows = y1 - y0;
  const bits = new Uint8Array((x1 - x0) * rows);
  const [tops, weights] = [new Int32Array(rows), new Float32Array(rows)];
  for (let i = 0; i < rows; i++) {
    const v = Math.min(Math.max((y0 + i + 0.5) * scale[1] * side - 0.5, 0), side - 1);
    tops[i] = Math.min(Math.floor(v), side - 2);
    weights[i] = v - tops[i]!;
  }
  const column = new Float32Array(side);
  for (let x = x0; x < x1; x++) {
    const u = Math.min(Math.max((x + 0.5) * scale[0] * side - 0.5, 0), side - 1);
    const left = Math.min(Math.floor(u), side - 2);
    const weight = u - left;
    for (let v = 0; v < side; v++) column[v] = logits[v * side + left]! * (1 - weight) + logits[v * side + left + 1]! * weight;
    const start = (x - x0) * rows;
    for (let i = 0; i < rows; i++) {
      const top = tops[i]!;
      bits[start + i] = column[top]! * (1 - weights[i]!) + column[top + 1]! * weights[i]! > 0 ? 1 : 0;
    }
  }
  return maskFromRegion({ box, bits }, width, height);
}

/** The part of the image in which logits can be above zero. */
export function boxOfLogits(logits: Int8Array, side: number, scale: XY, width: number, height: number): Box {
  let [u0, v0, u1, v1] = [side, side, 0, 0];
  for (let i = 0; i < logits.length; i++) {
    if (logits[i]! <= 0) continue;
    const [u, v] = [i % side, Math.floor(i / side)];
    [u0, v0, u1, v1] = [Math.min(u0, u), Math.min(v0, v), Math.max(u1, u + 1), Math.max(v1, v + 1)];
  }
  if (u1 === 0) return [0, 0, 0, 0];
  const [sx, sy] = [scale[0] * side, scale[1] * side];
  const box = growBox([(u0 - 1) / sx, (v0 - 1) / sy, (u1 + 1) / sx, (v1 + 1) / sy], 0, width, height);
  return box[2] > box[0] && box[3] > box[1] ? box : [0, 0, 0, 0];
}
