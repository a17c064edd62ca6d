/**
 * Masks as run lengths, as COCO has them: column by column, background first, then mask and background in turn.
 *
 * A mask never changes; every operation gives a new one. Bitmaps lie column by column too, so that a run is one
 * contiguous range of them.
 */

import { type Box, boxesMeet, EMPTY_BOX } from "../geometry";

export interface Mask {
  readonly width: number;
  readonly height: number;
  /** [R], they add up to width x height; the first may be 0, no other is. */
  readonly runs: Uint32Array;
  /** Pixels of the mask. */
  readonly area: number;
  readonly box: Box;
}

/** A rectangle of an image as a bitmap, column by column: 1 on the mask. */
export interface Region {
  readonly box: Box;
  readonly bits: Uint8Array;
}

/** Collects runs in order and joins neighbors of one value. */
export class RunBuilder {
  private runs = new Uint32Array(64);
  private count = 1; // the run being built; even index: background

  push(value: number, length: number): void {
    if (length === 0) return;
    if ((this.count - 1) % 2 !== (value ? 1 : 0)) {
      if (this.count === this.runs.length) {
        const larger = new Uint32Array(this.count * 2);
        larger.set(this.runs);
        this.runs = larger;
      }
      this.runs[this.count++] = 0;
    }
    this.runs[this.count - 1]! += length;
  }

  mask(width: number, height: number): Mask {
    return maskFromRuns(this.runs.slice(0, this.count), width, height);
  }
}

export function maskFromRuns(runs: Uint32Array, width: number, height: number): Mask {
  let [area, position] = [0, 0];
  let [x0, y0, x1, y1] = [width, height, 0, 0];
  for (let i = 0; i < runs.length; i++) {
    const length = runs[i]!;
    if (i % 2 === 1) {
      const last = position + length - 1;
      const [left, right] = [Math.floor(position / height), Math.floor(last / height)];
      area += length;
      x0 = Math.min(x0, left);
      x1 = Math.max(x1, right + 1);
      y0 = left === right ? Math.min(y0, position - left * height) : 0;
      y1 = left === right ? Math.max(y1, last - right * height + 1) : height;
    }
    position += length;
  }
  return { width, height, runs, area, box: area === 0 ? EMPTY_BOX : [x0, y0, x1, y1] };
}

export const emptyMask = (width: number, height: number): Mask =>
  maskFromRuns(Uint32Array.of(width * height), width, height);

/** From a bitmap of the whole image. */
export function maskFromBitmap(bits: Uint8Array, width: number, height: number): Mask {
  const builder = new RunBuilder();
  pushBits(builder, bits, 0, bits.length);
  return builder.mask(width, height);
}

function pushBits(builder: RunBuilder, bits: Uint8Array, first: number, end: number): void {
  let start = first;
  while (start < end) {
    const value = bits[start]!;
    let stop = start + 1;
    while (stop < end && bits[stop] === value) stop++;
    builder.push(value, stop - start);
    start = stop;
  }
}

/** Set `value` in a bitmap of the whole image wherever the mask lies, inside `clip`. */
export function paintMask(mask: Mask, target: Uint8Array | Uint16Array, value: number, clip?: Box): void {
  const { height } = mask;
  if (!clip || (clip[1] <= mask.box[1] && clip[3] >= mask.box[3])) {
    const [first, end] = clip ? [clip[0] * height, clip[2] * height] : [0, mask.width * height];
    forEachRun(mask, (start, stop) => {
      if (stop > first && start < end) target.fill(value, Math.max(start, first), Math.min(stop, end));
    });
    return;
  }
  if (!boxesMeet(mask.box, clip)) return;
  const [x0, y0, x1, y1] = clip;
  forEachRun(mask, (start, stop) => {
    const last = Math.min(x1, Math.ceil(stop / height));
    for (let x = Math.max(x0, Math.floor(start / height)); x < last; x++) {
      const column = x * height;
      target.fill(value, Math.max(start, column + y0), Math.max(start, Math.min(stop, column + y1)));
    }
  });
}

/** Call for each run of the mask with its first position and the one past its last, column by column. */
export function forEachRun(mask: Mask, visit: (start: number, stop: number) => void): void {
  const { runs } = mask;
  let position = 0;
  for (let i = 0; i < runs.length; i++) {
    const stop = position + runs[i]!;
    if (i % 2 === 1) visit(position, stop);
    position = stop;
  }
}

export function containsPixel(mask: Mask, x: number, y: number): boolean {
  const [x0, y0, x1, y1] = mask.box;
  if (x < x0 || x >= x1 || y < y0 || y >= y1) return false;
  const target = x * mask.height + y;
  let position = 0;
  for (let i = 0; i < mask.runs.length; i++) {
    position += mask.runs[i]!;
    if (target < position) return i % 2 === 1;
  }
  return false;
}

/** What a bitmap of the whole image has in columns x0 to x1, and the mask in all others. */
export function replaceColumns(mask: Mask, bits: Uint8Array, x0: number, x1: number): Mask {
  const builder = new RunBuilder();
  const [first, end] = [x0 * mask.height, x1 * mask.height];
  let [position, index] = [0, 0];
  for (; index < mask.runs.length && position < first; index++) {
    const stop = position + mask.runs[index]!;
    builder.push(index % 2, Math.min(stop, first) - position);
    position = stop;
  }
  pushBits(builder, bits, first, end);
  for (let i = 0, start = 0; i < mask.runs.length; i++) {
    const stop = start + mask.runs[i]!;
    if (stop > end) builder.push(i % 2, stop - Math.max(start, end));
    start = stop;
  }
  return builder.mask(mask.width, mask.height);
}

type Operation = "union" | "intersection" | "difference";

const TRUTH: Record<Operation, (a: number, b: number) => number> = {
  union: (a, b) => a | b,
  intersection: (a, b) => a & b,
  difference: (a, b) => a & (1 - b),
};

/** Two masks of one image, in time of their runs. */
export function combineMasks(a: Mask, b: Mask, operation: Operation): Mask {
  const truth = TRUTH[operation];
  const builder = new RunBuilder();
  let [i, j] = [0, 0];
  let [leftA, leftB] = [a.runs[0] ?? 0, b.runs[0] ?? 0];
  while (i < a.runs.length && j < b.runs.length) {
    const length = Math.min(leftA, leftB);
    builder.push(truth(i % 2, j % 2), length);
    leftA -= length;
    leftB -= length;
    if (leftA === 0) leftA = a.runs[++i] ?? 0;
    if (leftB === 0 && j < b.runs.length) leftB = b.runs[++j] ?? 0;
  }
  return builder.mask(a.width, a.height);
}

export function masksEqual(a: Mask, b: Mask): boolean {
  return a.area === b.area && a.runs.length === b.runs.length && a.runs.every((run, i) => run === b.runs[i]);
}

export function maskIou(a: Mask, b: Mask): number {
  if (!boxesMeet(a.box, b.box)) return 0;
  const shared = combineMasks(a, b, "intersection").area;
  return shared / (a.area + b.area - shared);
}

/** The mask inside a box. */
export function cropMask(mask: Mask, box: Box): Region {
  const [x0, y0, x1, y1] = box;
  const [width, height] = [x1 - x0, y1 - y0];
  const bits = new Uint8Array(width * height);
  forEachRun(mask, (start, stop) => {
    const last = Math.min(x1, Math.ceil(stop / mask.height));
    for (let x = Math.max(x0, Math.floor(start / mask.height)); x < last; x++) {
      const column = x * mask.height;
      const [top, bottom] = [Math.max(start - column, y0) - y0, Math.min(stop - column, y1) - y0];
      if (bottom > top) bits.fill(1, (x - x0) * height + top, (x - x0) * height + bottom);
    }
  });
  return { box, bits };
}

/** A mask that is a region's inside its box, and empty outside. */
export function maskFromRegion({ box, bits }: Region, width: number, height: number): Mask {
  const [x0, y0, x1, y1] = box;
  const rows = y1 - y0;
  const builder = new RunBuilder();
  builder.push(0, x0 * height);
  for (let x = x0; x < x1; x++) {
    builder.push(0, y0);
    pushBits(builder, bits, (x - x0) * rows, (x - x0 + 1) * rows);
    builder.push(0, height - y1);
  }
  builder.push(0, (width - x1) * height);
  return builder.mask(width, height);
}
