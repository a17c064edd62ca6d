/** Points and boxes in pixels of the upright image, x then y. */

export type XY = readonly [number, number];

/** Half-open: x1 and y1 lie one past the last column and row. */
export type Box = readonly [x0: number, y0: number, x1: number, y1: number];

export const EMPTY_BOX: Box = [0, 0, 0, 0];

export const isEmptyBox = ([x0, y0, x1, y1]: Box): boolean => x1 <= x0 || y1 <= y0;

export function uniteBoxes(a: Box, b: Box): Box {
  if (isEmptyBox(a)) return b;
  if (isEmptyBox(b)) return a;
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}

export const intersectBoxes = (a: Box, b: Box): Box => [
  Math.max(a[0], b[0]),
  Math.max(a[1], b[1]),
  Math.min(a[2], b[2]),
  Math.min(a[3], b[3]),
];

export const boxesMeet = (a: Box, b: Box): boolean => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

/** The pixels within `margin` of a box, inside an image. */
export const growBox = ([x0, y0, x1, y1]: Box, margin: number, width: number, height: number): Box => [
  Math.max(0, Math.floor(x0 - margin)),
  Math.max(0, Math.floor(y0 - margin)),
  Math.min(width, Math.ceil(x1 + margin)),
  Math.min(height, Math.ceil(y1 + margin)),
];

export const boxOfCorners = (a: XY, b: XY): Box => [
  Math.min(a[0], b[0]),
  Math.min(a[1], b[1]),
  Math.max(a[0], b[0]),
  Math.max(a[1], b[1]),
];

export const distance = (a: XY, b: XY): number => Math.hypot(a[0] - b[0], a[1] - b[1]);

export const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);

export const clampXY = ([x, y]: XY, width: number, height: number): XY => [clamp(x, 0, width), clamp(y, 0, height)];

/** Distance of a point from the line segment between two others. */
export function distanceToSegment(p: XY, a: XY, b: XY): number {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const lengthSquared = dx * dx + dy * dy;
  const t = lengthSquared === 0 ? 0 : clamp(((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / lengthSquared, 0, 1);
  return distance(p, [a[0] + t * dx, a[1] + t * dy]);
}
