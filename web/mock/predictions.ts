/** Predictions of the mock server: the canned mask that fits the prompt, or a disc where there is none. */

import type { PredictPrompt } from "../app/api/live_messages";
import { containsPixel, cropMask, maskFromBitmap, type Mask } from "../app/mask/mask";
import type { Photo } from "./photos";

export const SIDE = 256;

export interface Candidate {
  readonly mask: Mask;
  readonly score: number;
}

export function predict(photo: Photo, prompt: PredictPrompt, multimask: boolean): Candidate[] {
  const inside = prompt.points.filter((_, i) => prompt.labels[i] === 1);
  const outside = prompt.points.filter((_, i) => prompt.labels[i] === 0);
  const at = (mask: Mask, [x, y]: readonly [number, number]): boolean => containsPixel(mask, Math.floor(x), Math.floor(y));
  let fitting = photo
    .masks()
    .filter((mask) => inside.every((p) => at(mask, p)) && !outside.some((p) => at(mask, p)))
    .sort((a, b) => a.area - b.area);
  if (prompt.box) fitting = [...fitting].sort((a, b) => boxIou(b.box, prompt.box!) - boxIou(a.box, prompt.box!));
  const disc = discMask(photo, prompt);
  const masks = [...fitting.slice(0, 3), disc, disc, disc].slice(0, multimask ? 3 : 1);
  return masks.map((mask, i) => ({ mask, score: mask === disc ? 0.4 - i * 0.05 : 0.96 - Math.abs(i - 1) * 0.06 }));
}

function boxIou(a: readonly number[], b: readonly number[]): number {
  const [w, h] = [Math.min(a[2]!, b[2]!) - Math.max(a[0]!, b[0]!), Math.min(a[3]!, b[3]!) - Math.max(a[1]!, b[1]!)];
  if (w <= 0 || h <= 0) return 0;
  const area = (c: readonly number[]): number => (c[2]! - c[0]!) * (c[3]! - c[1]!);
  return (w * h) / (area(a) + area(b) - w * h);
}

function discMask({ width, height }: Photo, { points, labels, box }: PredictPrompt): Mask {
  const bits = new Uint8Array(width * height);
  const radius = Math.max(width, height) / 24;
  const paint = (cx: number, cy: number, rx: number, ry: number, value: number): void => {
    for (let x = Math.max(0, Math.floor(cx - rx)); x < Math.min(width, cx + rx); x++) {
      const reach = ry * Math.sqrt(Math.max(0, 1 - ((x + 0.5 - cx) / rx) ** 2));
      bits.fill(value, x * height + Math.max(0, Math.round(cy - reach)), x * height + Math.min(height, Math.round(cy + reach)));
    }
  };
  if (box) paint((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, (box[2] - box[0]) / 2, (box[3] - box[1]) / 2, 1);
  points.forEach(([x, y], i) => paint(x, y, radius, radius, labels[i] === 1 ? 1 : 0));
  return maskFromBitmap(bits, width, height);
}

/** int8 [SIDE, SIDE] logits of a mask, in the frame of longest-side resizing with padding. */
export function logitsOf(mask: Mask): Int8Array {
  const { width, height } = mask;
  const { bits } = cropMask(mask, [0, 0, width, height]);
  const cell = Math.max(width, height) / SIDE;
  const logits = new Int8Array(SIDE * SIDE).fill(-127);
  const step = Math.max(1, cell / 4);
  for (let v = 0; v < SIDE; v++) {
    for (let u = 0; u < SIDE; u++) {
      let [sum, count] = [0, 0];
      for (let x = (u - 0.5) * cell + step / 2; x < (u + 1.5) * cell; x += step) {
        for (let y = (v - 0.5) * cell + step / 2; y < (v + 1.5) * cell; y += step) {
          if (x < 0 || y < 0 || x >= width || y >= height) continue;
          sum += bits[Math.floor(x) * height + Math.floor(y)]!;
          count++;
        }
      }
      if (count > 0) logits[v * SIDE + u] = Math.round(((sum / count) * 2 - 1) * 100);
    }
  }
  return logits;
}
