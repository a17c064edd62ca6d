/** The photographs of the mock server: those of examples/, and two larger ones made of them. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { crc32, deflateSync } from "node:zlib";

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

const carried: Photo[] = Object.entries(canned as unknown as Record<string, { width: number; height: number; proposals: Proposal[] }>).map(
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
    const scale = Math.max(width / small.width, height / small.height);
    const stride = 1 + width * 3; // the kind of filter, then RGB
    const rows = Buffer.alloc(stride * height);
    for (let y = 0; y < height; y++) {
      const row = Math.floor(y / scale) * small.width;
      for (let x = 0, to = y * stride + 1; x < width; x++, to += 3) {
        const from = (row + Math.floor(x / scale)) * 4;
        rows[to] = small.data[from]!;
        rows[to + 1] = small.data[from + 1]!;
        rows[to + 2] = small.data[from + 2]!;
      }
    }
    return encodePng(rows, width, height);
  });
  return { name, width, height, file, proposals: [], masks: () => [] };
}

/** Of rows that have their filter byte: much faster than pngjs for large images. */
function encodePng(rows: Buffer, width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, sum]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(rows, { level: 1 })), chunk("IEND", Buffer.alloc(0))]);
}

export const PHOTOS: readonly Photo[] = [
  ...carried,
  enlarged(carried[0]!, "crowd", 1800, 1200),
  enlarged(carried[1]!, "large", 4000, 3000),
  enlarged(carried[0]!, "huge", 6000, 4000),
];
