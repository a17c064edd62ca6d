/** The photographs of the mock server: those of examples/, and two larger ones made of them. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { PNG } from "pngjs";

import type { Proposal } from "../app/api/types";
import { decodeCounts } from "../app/mask/counts";
import type { Mask } from "../app/mask/mask";
import canned from "./proposals.json";

export interface Photo {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  /** A PNG file. */
  readonly file: () => Buffer;
  readonly proposals: readonly Proposal[];
  readonly masks: () => readonly Mask[];
}

const IMAGES = fileURLToPath(new URL("../../examples/images/", import.meta.url));

function once<T>(make: () => T): () => T {
  let value: { made: T } | null = null;
  return () => (value ??= { made: make() }).made;
}

const carried: Photo[] = Object.entries(canned as Record<string, { width: number; height: number; proposals: Proposal[] }>).map(
  ([name, { width, height, proposals }]) => ({
    name,
    width,
    height,
    file: once(() => readFileSync(`${IMAGES}${name}.png`)),
    proposals,
    masks: once(() => proposals.map(({ counts }) => decodeCounts(counts, width, height))),
  }),
);

function enlarged(photo: Photo, name: string, width: number, height: number): Photo {
  const file = once(() => {
    const small = PNG.sync.read(photo.file());
    const large = new PNG({ width, height });
    const scale = Math.max(width / small.width, height / small.height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const from = (Math.floor(y / scale) * small.width + Math.floor(x / scale)) * 4;
        small.data.copy(large.data, (y * width + x) * 4, from, from + 4);
      }
    }
    return PNG.sync.write(large, { deflateLevel: 1, filterType: 0 });
  });
  return { name, width, height, file, proposals: [], masks: () => [] };
}

export const PHOTOS: readonly Photo[] = [
  ...carried,
  enlarged(carried[0]!, "crowd", 1800, 1200),
  enlarged(carried[1]!, "large", 4000, 3000),
];
