import { describe, expect, it } from "vitest";

import { paintSegment, snapToPixels } from "../app/mask/brush";
import { decodeCounts, encodeCounts } from "../app/mask/counts";
import {
  combineMasks, containsPixel, cropMask, emptyMask, type Mask, maskFromBitmap, maskFromRegion, masksEqual, paintMask,
  replaceColumns,
} from "../app/mask/mask";
import { cutMask, fillHoles, growMask, removeSpecks, splitParts } from "../app/mask/morphology";
import { deleteVertex, editableRings, insertVertex, moveVertex, rasterizePolygon, traceBoundary } from "../app/mask/polygon";
import vectors from "./coco_counts.json";

/** Rows of text, `#` on the mask. */
function mask(...rows: string[]): Mask {
  const [width, height] = [rows[0]!.length, rows.length];
  const bits = new Uint8Array(width * height);
  rows.forEach((row, y) => [...row].forEach((c, x) => (bits[x * height + y] = Number(c === "#"))));
  return maskFromBitmap(bits, width, height);
}

function rowsOf(m: Mask): string[] {
  return Array.from({ length: m.height }, (_, y) =>
    Array.from({ length: m.width }, (_, x) => (containsPixel(m, x, y) ? "#" : ".")).join(""),
  );
}

/** A fixed sequence of numbers in [0, 1). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function randomMask(width: number, height: number, seed: number, share = 0.5): Mask {
  const next = random(seed);
  return maskFromBitmap(Uint8Array.from({ length: width * height }, () => Number(next() < share)), width, height);
}

function bitmap(m: Mask): Uint8Array {
  const bits = new Uint8Array(m.width * m.height);
  paintMask(m, bits, 1);
  return bits;
}

describe("counts", () => {
  it.each(vectors.map((v) => [v.name, v] as const))("equal pycocotools': %s", (_, v) => {
    const [height, width] = v.size as [number, number];
    const m = decodeCounts(v.counts, width, height);
    expect(encodeCounts(m)).toBe(v.counts);
    expect(m.area).toBe(v.area);
    expect(m.box).toEqual(v.box_xyxy);
    expect(masksEqual(m, maskFromBitmap(bitmap(m), width, height))).toBe(true);
  });

  it("refuses counts that do not fit the image or are no counts", () => {
    expect(() => decodeCounts("4", 3, 3)).toThrow(RangeError);
    expect(() => decodeCounts("\u0000", 3, 3)).toThrow(RangeError);
  });
});

describe("masks", () => {
  it("combine as sets of pixels", () => {
    const [a, b] = [randomMask(13, 7, 1), randomMask(13, 7, 2)];
    const truth = (f: (x: number, y: number) => number) => bitmap(a).map((x, i) => f(x, bitmap(b)[i]!));
    expect(bitmap(combineMasks(a, b, "union"))).toEqual(truth((x, y) => x | y));
    expect(bitmap(combineMasks(a, b, "intersection"))).toEqual(truth((x, y) => x & y));
    expect(bitmap(combineMasks(a, b, "difference"))).toEqual(truth((x, y) => x & (1 - y)));
  });

  it("paint inside a box only", () => {
    const m = randomMask(11, 9, 3);
    const bits = new Uint8Array(99);
    paintMask(m, bits, 1, [2, 3, 7, 6]);
    bits.forEach((bit, i) => {
      const [x, y] = [Math.floor(i / 9), i % 9];
      expect(bit).toBe(Number(x >= 2 && x < 7 && y >= 3 && y < 6 && containsPixel(m, x, y)));
    });
  });

  it("take columns of a bitmap and keep the others", () => {
    const [a, b] = [randomMask(12, 5, 4), randomMask(12, 5, 5)];
    const expected = bitmap(a);
    expected.set(bitmap(b).subarray(15, 40), 15);
    expect(masksEqual(replaceColumns(a, bitmap(b), 3, 8), maskFromBitmap(expected, 12, 5))).toBe(true);
  });

  it("come back from their crop", () => {
    const m = randomMask(20, 17, 6, 0.1);
    expect(masksEqual(maskFromRegion(cropMask(m, m.box), 20, 17), m)).toBe(true);
    expect(emptyMask(4, 3).box).toEqual([0, 0, 0, 0]);
  });
});

describe("brush", () => {
  const stroke = (size: number, a: [number, number], b = a, shape: "round" | "square" = "round") => {
    const bits = new Uint8Array(49);
    paintSegment(bits, [7, 7], snapToPixels(a, size), snapToPixels(b, size), size, 1, shape);
    return maskFromBitmap(bits, 7, 7);
  };

  it("of size 1 covers the pixel under the pointer", () => {
    for (const at of [[3.01, 2.99], [3.5, 2.5], [3.99, 2.01]] as [number, number][]) {
      expect(rowsOf(stroke(1, at))[2]).toBe("...#...");
      expect(stroke(1, at).area).toBe(1);
    }
  });

  it("has one form for each size", () => {
    expect(rowsOf(stroke(3, [3.2, 3.9]))).toEqual(rowsOf(stroke(3, [3.7, 3.1])));
    expect(rowsOf(stroke(3, [3.2, 3.9])).slice(2, 5)).toEqual(["..###..", "..###..", "..###.."]);
    expect(stroke(2, [3.2, 3.2]).area).toBe(4);
    expect(stroke(5, [3, 3]).area).toBe(21);
    expect(stroke(4, [3, 3], [3, 3], "square").area).toBe(16);
  });

  it("draws the pixels whose centers lie within its radius of the line, as counted one by one", () => {
    const next = random(7);
    for (let n = 0; n < 50; n++) {
      const [a, b] = [[next() * 40, next() * 30], [next() * 40, next() * 30]] as [[number, number], [number, number]];
      const radius = 0.5 + next() * 6;
      const bits = new Uint8Array(1200);
      paintSegment(bits, [40, 30], a, b, radius * 2, 1);
      let wrong = 0;
      for (let i = 0; i < 1200; i++) {
        const [x, y] = [Math.floor(i / 30) + 0.5, (i % 30) + 0.5];
        const length2 = (b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2;
        const t = Math.min(1, Math.max(0, ((x - a[0]) * (b[0] - a[0]) + (y - a[1]) * (b[1] - a[1])) / length2));
        const d = Math.hypot(x - a[0] - t * (b[0] - a[0]), y - a[1] - t * (b[1] - a[1]));
        if (Math.abs(d - radius) > 1e-3 && bits[i] !== Number(d < radius)) wrong++;
      }
      expect(wrong).toBe(0);
    }
  });
});

describe("morphology", () => {
  it("fills holes, not bays", () => {
    expect(rowsOf(fillHoles(mask("#####", "#.#.#", "#####", "#.###", "#.###")))).toEqual(["#####", "#####", "#####", "#.###", "#.###"]);
    expect(rowsOf(fillHoles(mask("####", "#..#", "####"), 1))[1]).toBe("#..#");
  });

  it("removes specks and keeps the largest part", () => {
    expect(rowsOf(removeSpecks(mask("##..#", "##...", "...##"), 3))).toEqual(["##...", "##...", "....."]);
    expect(removeSpecks(mask("#..#"), 100).area).toBe(1);
  });

  it("grows and shrinks by a distance", () => {
    const dot = mask(".....", ".....", "..#..", ".....", ".....");
    expect(rowsOf(growMask(dot, 1))).toEqual([".....", "..#..", ".###.", "..#..", "....."]);
    expect(masksEqual(growMask(growMask(dot, 2), -2), dot)).toBe(true);
    expect(growMask(mask("###", "###", "###"), -1).area).toBe(9); // the image ends there, not the object
  });

  it("splits parts and cuts along a line without losing a pixel", () => {
    expect(splitParts(mask("##..#", "##..#")).map((p) => p.area)).toEqual([4, 2]);
    const whole = randomMask(30, 20, 8, 1);
    const parts = cutMask(whole, [[10.5, -2], [14.5, 25]]);
    expect(parts).toHaveLength(2);
    expect(parts[0]!.area + parts[1]!.area).toBe(600);
    expect(combineMasks(parts[0]!, parts[1]!, "intersection").area).toBe(0);
    expect(cutMask(whole, [[5, 5], [10, 10]])).toEqual([whole]);
  });
});

describe("polygons", () => {
  it("give the same mask back, with holes and parts that touch at a corner", () => {
    for (let seed = 0; seed < 20; seed++) {
      const m = randomMask(17, 13, seed, 0.2 + (seed % 5) * 0.15);
      expect(masksEqual(rasterizePolygon(traceBoundary(m), 17, 13), m)).toBe(true);
      const rings = editableRings(m, 1.5).map(({ points }) => points);
      expect(masksEqual(rasterizePolygon(rings, 17, 13), m)).toBe(true);
    }
  });

  it("hold the pixels whose centers lie inside", () => {
    expect(rowsOf(rasterizePolygon([[[1, 1], [4, 1], [4, 3], [1, 3]]], 5, 4))).toEqual([".....", ".###.", ".###.", "....."]);
    expect(rasterizePolygon([[[-5, -5], [50, -5], [50, 50], [-5, 50]]], 5, 4).area).toBe(20);
    expect(rasterizePolygon([], 5, 4).area).toBe(0);
  });

  it("change only beside the vertex that moved", () => {
    const m = mask("..........", ".########.", ".########.", ".########.", ".########.", "..........");
    const [ring] = editableRings(m, 0.5);
    expect(ring!.vertices).toHaveLength(4);
    const index = ring!.vertices.findIndex((v) => ring!.points[v]![0] === 9 && ring!.points[v]![1] === 5);
    const moved = rasterizePolygon([moveVertex(ring!, index, [10, 6]).points], 10, 6);
    expect(containsPixel(moved, 8, 4)).toBe(true);
    expect(rowsOf(moved).slice(1, 2)).toEqual([".########."]);
    const removed = deleteVertex(ring!, index);
    expect(removed.vertices).toHaveLength(3);
    expect(rasterizePolygon([removed.points], 10, 6).area).toBeLessThan(m.area);
    const added = insertVertex(ring!, index, [5, 6]);
    expect(added.vertices).toHaveLength(5);
    expect(added.vertices.map((v) => added.points[v]!)).toContainEqual([5, 6]);
  });
});
