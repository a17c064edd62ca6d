/** Polygons to masks and masks to polygons, and vertices as a view on a mask. */

import { type Box, clamp, distanceToSegment, growBox, type XY } from "../geometry";
import { cropMask, type Mask, maskFromRegion } from "./mask";

/** Closed: the last point is joined to the first. */
export type Ring = readonly XY[];

/** The pixels whose centers lie inside, by the even-odd rule: rings inside rings are holes. */
export function rasterizePolygon(rings: readonly Ring[], width: number, height: number): Mask {
  const box = boxOfRings(rings, width, height);
  const [x0, y0, x1, y1] = box;
  const rows = y1 - y0;
  const crossings: number[][] = Array.from({ length: Math.max(0, x1 - x0) }, () => []);
  for (const ring of rings) {
    ring.forEach((a, i) => {
      const b = ring[(i + 1) % ring.length]!;
      if (a[0] === b[0]) return;
      const [left, right] = a[0] < b[0] ? [a, b] : [b, a];
      const first = Math.max(x0, Math.ceil(left[0] - 0.5));
      const end = Math.min(x1, Math.ceil(right[0] - 0.5));
      const slope = (right[1] - left[1]) / (right[0] - left[0]);
      for (let x = first; x < end; x++) crossings[x - x0]!.push(left[1] + (x + 0.5 - left[0]) * slope);
    });
  }
  const bits = new Uint8Array(crossings.length * Math.max(0, rows));
  crossings.forEach((column, i) => {
    column.sort((a, b) => a - b);
    for (let k = 0; k + 1 < column.length; k += 2) {
      const first = clamp(Math.ceil(column[k]! - 0.5) - y0, 0, rows);
      const end = clamp(Math.ceil(column[k + 1]! - 0.5) - y0, 0, rows);
      if (end > first) bits.fill(1, i * rows + first, i * rows + end);
    }
  });
  return maskFromRegion({ box: crossings.length > 0 && rows > 0 ? box : [0, 0, 0, 0], bits }, width, height);
}

function boxOfRings(rings: readonly Ring[], width: number, height: number): Box {
  let [x0, y0, x1, y1] = [width, height, 0, 0];
  for (const ring of rings) {
    for (const [x, y] of ring) {
      [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x), Math.max(y1, y)];
    }
  }
  return growBox([x0, y0, x1, y1], 0, width, height);
}

const STEPS: readonly XY[] = [[1, 0], [0, 1], [-1, 0], [0, -1]];

/** The exact boundary of a mask along the edges of its pixels: corners only. Rasterizing them gives the mask again. */
export function traceBoundary(mask: Mask): Ring[] {
  if (mask.area === 0) return [];
  const { box, bits } = cropMask(mask, mask.box);
  const [width, height] = [box[2] - box[0], box[3] - box[1]];
  const at = (x: number, y: number): number =>
    x < 0 || y < 0 || x >= width || y >= height ? 0 : bits[x * height + y]!;
  // Directions in which boundary leaves each corner, as bits; the mask is on its right.
  const leaving = new Uint8Array((width + 1) * (height + 1));
  const corner = (x: number, y: number): number => x * (height + 1) + y;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (!bits[x * height + y]) continue;
      if (!at(x, y - 1)) leaving[corner(x, y)]! |= 1;
      if (!at(x + 1, y)) leaving[corner(x + 1, y)]! |= 2;
      if (!at(x, y + 1)) leaving[corner(x + 1, y + 1)]! |= 4;
      if (!at(x - 1, y)) leaving[corner(x, y + 1)]! |= 8;
    }
  }
  const rings: Ring[] = [];
  for (let start = 0; start < leaving.length; start++) {
    while (leaving[start]) rings.push(follow(leaving, start, height + 1, box));
  }
  return rings;
}

function follow(leaving: Uint8Array, start: number, stride: number, box: Box): Ring {
  const ring: XY[] = [];
  let position = start;
  let direction = 31 - Math.clz32(leaving[start]! & -leaving[start]!);
  let previous = -1;
  do {
    if (direction !== previous) ring.push([Math.floor(position / stride) + box[0], (position % stride) + box[1]]);
    leaving[position]! &= ~(1 << direction);
    previous = direction;
    const [dx, dy] = STEPS[direction]!;
    position += dx * stride + dy;
    const turns = [direction + 1, direction, direction + 3].map((turn) => turn % 4);
    direction = turns.find((turn) => leaving[position]! & (1 << turn)) ?? -1;
  } while (direction >= 0 && position !== start);
  return ring;
}

/** A ring of the exact boundary, of which some points are shown as vertices. */
export interface EditableRing {
  readonly points: Ring;
  /** Indices into `points`, ascending. */
  readonly vertices: readonly number[];
}

/** Vertices so that the lines between them stay within `tolerance` of the boundary (Douglas and Peucker). */
export function editableRings(mask: Mask, tolerance: number): EditableRing[] {
  return traceBoundary(mask).map((points) => ({ points, vertices: simplify(points, tolerance) }));
}

function simplify(points: Ring, tolerance: number): number[] {
  if (points.length <= 4) return points.map((_, i) => i);
  let far = 0;
  points.forEach((p, i) => {
    if (Math.hypot(p[0] - points[0]![0], p[1] - points[0]![1]) > Math.hypot(points[far]![0] - points[0]![0], points[far]![1] - points[0]![1])) far = i;
  });
  const kept = new Set([0, far]);
  const stack: [number, number][] = [[0, far], [far, points.length]];
  while (stack.length > 0) {
    const [first, end] = stack.pop()!;
    let [worst, worstDistance] = [-1, tolerance];
    for (let i = first + 1; i < end; i++) {
      const d = distanceToSegment(points[i]!, points[first]!, points[end % points.length]!);
      if (d > worstDistance) [worst, worstDistance] = [i, d];
    }
    if (worst >= 0) {
      kept.add(worst);
      stack.push([first, worst], [worst, end]);
    }
  }
  return [...kept].sort((a, b) => a - b);
}

/** Put a vertex elsewhere. Only the boundary between its neighbors changes, to two straight lines. */
export const moveVertex = (ring: EditableRing, index: number, to: XY): EditableRing => replaceVertex(ring, index, [to]);

/** Remove a vertex: a straight line joins its neighbors. A ring of three vertices stays as it is. */
export const deleteVertex = (ring: EditableRing, index: number): EditableRing =>
  ring.vertices.length <= 3 ? ring : replaceVertex(ring, index, []);

/** Add a vertex after the one at `index`; lines join it to its neighbors. */
export function insertVertex(ring: EditableRing, index: number, at: XY): EditableRing {
  const { points, vertices } = rotate(ring, vertexAt(ring, index));
  const next = vertices[1] ?? points.length;
  return {
    points: [points[0]!, at, ...points.slice(next)],
    vertices: [0, 1, ...vertices.slice(1).map((v) => v - next + 2)],
  };
}

function replaceVertex(ring: EditableRing, index: number, by: readonly XY[]): EditableRing {
  const count = ring.vertices.length;
  // From the vertex before it on, so that the ring's end is not between the two neighbors.
  const { points, vertices } = rotate(ring, vertexAt(ring, (index + count - 1) % count));
  const next = vertices[2] ?? points.length;
  const shift = 1 + by.length - next;
  return {
    points: [points[0]!, ...by, ...points.slice(next)],
    vertices: [0, ...by.map((_, i) => i + 1), ...vertices.slice(2).map((v) => v + shift)],
  };
}

const vertexAt = (ring: EditableRing, index: number): number => ring.vertices[index]!;

function rotate({ points, vertices }: EditableRing, start: number): EditableRing {
  const count = points.length;
  return {
    points: [...points.slice(start), ...points.slice(0, start)],
    vertices: vertices.map((v) => (v - start + count) % count).sort((a, b) => a - b),
  };
}
