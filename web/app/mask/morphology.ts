/** Connected components, holes, specks, growing, shrinking and cutting of masks. */

import { growBox, type XY } from "../geometry";
import { combineMasks, cropMask, type Mask, maskFromRegion, type Region } from "./mask";
import { paintSegment } from "./brush";

interface Components {
  /** [w * h] column by column: 0 where `bits` has another value, otherwise the number of the component, from 1. */
  readonly labels: Int32Array;
  /** Pixels of each component; index 0 is unused. */
  readonly areas: number[];
  readonly touchesBorder: boolean[];
}

type Connectivity = 4 | 8;

/** Components of the pixels of a region that have `value`. */
export function connectedComponents({ box, bits }: Region, value: 0 | 1, connectivity: Connectivity): Components {
  const [width, height] = [box[2] - box[0], box[3] - box[1]];
  const labels = new Int32Array(bits.length);
  const [areas, touchesBorder] = [[0], [false]];
  const stack: number[] = [];
  for (let seed = 0; seed < bits.length; seed++) {
    if (bits[seed] !== value || labels[seed] !== 0) continue;
    const label = areas.length;
    let [area, atBorder] = [0, false];
    labels[seed] = label;
    stack.push(seed);
    while (stack.length > 0) {
      const pixel = stack.pop()!;
      const x = Math.floor(pixel / height);
      const y = pixel - x * height;
      area++;
      if (x === 0 || y === 0 || x === width - 1 || y === height - 1) atBorder = true;
      for (let dx = -1; dx <= 1; dx++) {
        if (x + dx < 0 || x + dx >= width) continue;
        for (let dy = -1; dy <= 1; dy++) {
          if (y + dy < 0 || y + dy >= height || (connectivity === 4 && dx !== 0 && dy !== 0)) continue;
          const next = pixel + dx * height + dy;
          if (bits[next] === value && labels[next] === 0) {
            labels[next] = label;
            stack.push(next);
          }
        }
      }
    }
    areas.push(area);
    touchesBorder.push(atBorder);
  }
  return { labels, areas, touchesBorder };
}

/** Fill background that is enclosed by the mask; with `maxArea`, only holes of up to so many pixels. */
export function fillHoles(mask: Mask, maxArea = Infinity): Mask {
  const region = cropMask(mask, growBox(mask.box, 1, mask.width, mask.height));
  const { labels, areas, touchesBorder } = connectedComponents(region, 0, 4);
  const bits = region.bits.map((bit, i) => {
    const label = labels[i]!;
    return label > 0 && !touchesBorder[label] && areas[label]! <= maxArea ? 1 : bit;
  });
  return maskFromRegion({ box: region.box, bits }, mask.width, mask.height);
}

/** Remove parts of fewer than `minArea` pixels. The largest part stays in any case. */
export function removeSpecks(mask: Mask, minArea: number): Mask {
  if (mask.area === 0) return mask;
  const region = cropMask(mask, mask.box);
  const { labels, areas } = connectedComponents(region, 1, 8);
  const largest = areas.indexOf(Math.max(...areas));
  const bits = region.bits.map((bit, i) => (bit && (labels[i] === largest || areas[labels[i]!]! >= minArea) ? 1 : 0));
  return maskFromRegion({ box: region.box, bits }, mask.width, mask.height);
}

/** The 8-connected parts of a mask, largest first. */
export function splitParts(mask: Mask): Mask[] {
  if (mask.area === 0) return [];
  const region = cropMask(mask, mask.box);
  const { labels, areas } = connectedComponents(region, 1, 8);
  return partsByLabel(mask, region, labels, areas);
}

function partsByLabel(mask: Mask, region: Region, labels: Int32Array, areas: readonly number[]): Mask[] {
  return areas
    .map((area, label) => ({ area, label }))
    .filter(({ area }) => area > 0)
    .sort((a, b) => b.area - a.area)
    .map(({ label }) =>
      maskFromRegion({ box: region.box, bits: Uint8Array.from(labels, (l) => Number(l === label)) }, mask.width, mask.height),
    );
}

/** Add pixels whose center lies within `radius` of the mask, or, with a negative radius, remove those near the background. */
export function growMask(mask: Mask, radius: number): Mask {
  if (mask.area === 0 || radius === 0) return mask;
  const margin = Math.max(1, Math.ceil(Math.abs(radius)));
  const { width, height } = mask;
  // Beyond the image the mask neither ends nor begins: a mask at the edge does not shrink there.
  const region = cropMask(mask, growBox(mask.box, margin, width, height));
  const grows = radius > 0;
  const squared = squaredDistances(region, grows ? 1 : 0);
  const limit = radius * radius + 1e-9;
  const bits = region.bits.map((_, i) => Number(grows ? squared[i]! <= limit : squared[i]! > limit));
  return maskFromRegion({ box: region.box, bits }, width, height);
}

/** Squared Euclidean distance of each pixel from the nearest of `value` (Felzenszwalb and Huttenlocher). */
export function squaredDistances({ box, bits }: Region, value: 0 | 1): Float64Array {
  const [width, height] = [box[2] - box[0], box[3] - box[1]];
  const far = 1e12;
  const distances = Float64Array.from(bits, (bit) => (bit === value ? 0 : far));
  const longest = Math.max(width, height);
  const [line, hull, bounds] = [new Float64Array(longest), new Int32Array(longest), new Float64Array(longest + 1)];
  const transform = (start: number, step: number, length: number): void => {
    let last = 0;
    for (let i = 0; i < length; i++) line[i] = distances[start + i * step]!;
    hull[0] = 0;
    bounds[0] = -Infinity;
    bounds[1] = Infinity;
    for (let i = 1; i < length; i++) {
      let crossing: number;
      for (;;) {
        const v = hull[last]!;
        crossing = (line[i]! + i * i - (line[v]! + v * v)) / (2 * i - 2 * v);
        if (crossing > bounds[last]! || last === 0) break;
        last--;
      }
      if (crossing <= bounds[last]!) {
        hull[last] = i;
      } else {
        hull[++last] = i;
        bounds[last] = crossing;
      }
      bounds[last + 1] = Infinity;
    }
    for (let i = 0, k = 0; i < length; i++) {
      while (bounds[k + 1]! < i) k++;
      const v = hull[k]!;
      distances[start + i * step] = (i - v) * (i - v) + line[v]!;
    }
  };
  for (let x = 0; x < width; x++) transform(x * height, 1, height);
  for (let y = 0; y < height; y++) transform(y, height, width);
  return distances;
}

/**
 * Cut a mask along a line: parts that the line separates, largest first. One part where it separates none.
 *
 * The pixels under the line go to the part nearest to them, so that nothing is lost.
 */
export function cutMask(mask: Mask, line: readonly XY[]): Mask[] {
  if (mask.area === 0 || line.length < 2) return [mask];
  const before = splitParts(mask).length;
  const knife = new Uint8Array(mask.width * mask.height);
  for (let i = 1; i < line.length; i++) {
    paintSegment(knife, [mask.width, mask.height], line[i - 1]!, line[i]!, 1.5, 1);
  }
  const region = cropMask(mask, mask.box);
  const [x0, y0, , y1] = region.box;
  const rows = y1 - y0;
  const bits = region.bits.map((bit, i) => {
    const x = Math.floor(i / rows);
    return bit && !knife[(x + x0) * mask.height + (i - x * rows) + y0] ? 1 : 0;
  });
  const { labels, areas } = connectedComponents({ box: region.box, bits }, 1, 4);
  spreadLabels(labels, region, areas);
  const parts = partsByLabel(mask, region, labels, areas);
  return parts.length > before ? parts : [mask];
}

/** Give each pixel of the region without a label that of its nearest labeled neighbor, in rings. */
function spreadLabels(labels: Int32Array, { box, bits }: Region, areas: number[]): void {
  const [width, height] = [box[2] - box[0], box[3] - box[1]];
  let front: number[] = [];
  labels.forEach((label, i) => label > 0 && front.push(i));
  while (front.length > 0) {
    const next: number[] = [];
    for (const pixel of front) {
      const x = Math.floor(pixel / height);
      const y = pixel - x * height;
      const visit = (neighbor: number): void => {
        if (!bits[neighbor] || labels[neighbor] !== 0) return;
        labels[neighbor] = labels[pixel]!;
        areas[labels[pixel]!]!++;
        next.push(neighbor);
      };
      if (x > 0) visit(pixel - height);
      if (x < width - 1) visit(pixel + height);
      if (y > 0) visit(pixel - 1);
      if (y < height - 1) visit(pixel + 1);
    }
    front = next;
  }
}

export const uniteMasks = (masks: readonly Mask[]): Mask => masks.reduce((a, b) => combineMasks(a, b, "union"));
