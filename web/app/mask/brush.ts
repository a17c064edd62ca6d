/** Brush strokes with exact pixels: a pixel belongs to a stroke if its center lies within half the brush's size of it. */

import { type Box, growBox, type XY } from "../geometry";

/**
 * Where the center of a brush lies: on the center of a pixel for an odd size and on a corner for an even one, so that
 * one size always covers the same pixels.
 */
export function snapToPixels([x, y]: XY, size: number): XY {
  return size % 2 === 1 ? [Math.floor(x) + 0.5, Math.floor(y) + 0.5] : [Math.round(x), Math.round(y)];
}

/**
 * Set `value` where a brush passes in a straight line from a to b.
 *
 * @param bits of the whole image, column by column.
 * @param shape of the brush.
 * @returns the box of what may have changed.
 */
export function paintSegment(
  bits: Uint8Array,
  [width, height]: readonly [number, number],
  a: XY,
  b: XY,
  size: number,
  value: 0 | 1,
  shape: "round" | "square" = "round",
): Box {
  const radius = size / 2;
  const box = growBox([Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])], radius, width, height);
  for (let x = box[0]; x < box[2]; x++) {
    const [low, high] = shape === "round" ? capsuleColumn(x + 0.5, a, b, radius) : squareColumn(x + 0.5, a, b, radius);
    // Centers within the interval; the tolerance keeps discs symmetric in spite of rounding.
    const first = Math.max(0, Math.ceil(low - 0.5 - 1e-6));
    const end = Math.min(height, Math.floor(high - 0.5 + 1e-6) + 1);
    if (end > first) bits.fill(value, x * height + first, x * height + end);
  }
  return box;
}

/** The interval in which the vertical line at x lies within `radius` of the segment. It is convex, so there is one. */
function capsuleColumn(x: number, a: XY, b: XY, radius: number): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const [cx, cy] of [a, b]) {
    const half = radius * radius - (x - cx) * (x - cx);
    if (half < -1e-9) continue;
    const reach = Math.sqrt(Math.max(0, half));
    low = Math.min(low, cy - reach);
    high = Math.max(high, cy + reach);
  }
  const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
  if (length === 0) return [low, high];
  const [nx, ny] = [(-(b[1] - a[1]) / length) * radius, ((b[0] - a[0]) / length) * radius];
  const corners: XY[] = [
    [a[0] + nx, a[1] + ny],
    [b[0] + nx, b[1] + ny],
    [b[0] - nx, b[1] - ny],
    [a[0] - nx, a[1] - ny],
  ];
  return crossings(x, corners, low, high);
}

/** The same for a square brush: the convex hull of two squares. */
function squareColumn(x: number, a: XY, b: XY, radius: number): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const [cx, cy] of [a, b]) {
    if (Math.abs(x - cx) > radius) continue;
    low = Math.min(low, cy - radius);
    high = Math.max(high, cy + radius);
  }
  for (const [sx, sy] of [[-1, -1], [1, -1], [1, 1], [-1, 1]] as const) {
    const [p, q]: [XY, XY] = [
      [a[0] + sx * radius, a[1] + sy * radius],
      [b[0] + sx * radius, b[1] + sy * radius],
    ];
    [low, high] = crossings(x, [p, q], low, high);
  }
  return [low, high];
}

function crossings(x: number, corners: readonly XY[], low: number, high: number): [number, number] {
  corners.forEach((p, i) => {
    const q = corners[(i + 1) % corners.length]!;
    if (p[0] === q[0] || x < Math.min(p[0], q[0]) || x > Math.max(p[0], q[0])) return;
    const y = p[1] + ((x - p[0]) / (q[0] - p[0])) * (q[1] - p[1]);
    low = Math.min(low, y);
    high = Math.max(high, y);
  });
  return [low, high];
}
