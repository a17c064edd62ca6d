/** COCO's text form of run lengths: five bits a character, each run but the first three as its difference to the one two before. */

import { type Mask, maskFromRuns } from "./mask";

const FIRST_CHARACTER = 48;

export function encodeCounts({ runs }: Pick<Mask, "runs">): string {
  const codes: number[] = [];
  for (let i = 0; i < runs.length; i++) {
    let value = i > 2 ? runs[i]! - runs[i - 2]! : runs[i]!;
    for (let more = true; more; ) {
      const digit = value & 0x1f;
      value >>= 5;
      more = digit & 0x10 ? value !== -1 : value !== 0;
      codes.push((more ? digit | 0x20 : digit) + FIRST_CHARACTER);
    }
  }
  return decodeLatin(codes);
}

/** @throws RangeError the text is no run lengths, or they do not add up to the size. */
export function decodeCounts(counts: string, width: number, height: number): Mask {
  const runs = new Uint32Array(counts.length);
  let [count, total, position] = [0, 0, 0];
  while (position < counts.length) {
    let [value, shift, digit] = [0, 0, 0];
    do {
      digit = counts.charCodeAt(position++) - FIRST_CHARACTER;
      if (!(digit >= 0 && digit < 64) || shift > 30) throw new RangeError("These counts are not run lengths of COCO.");
      value |= (digit & 0x1f) << shift;
      shift += 5;
    } while (digit & 0x20);
    if (digit & 0x10 && shift < 32) value |= -1 << shift;
    if (count > 2) value += runs[count - 2]!;
    if (value < 0) throw new RangeError("These counts have a negative run.");
    runs[count++] = value;
    total += value;
  }
  if (total !== width * height) {
    throw new RangeError(`These counts cover ${total} pixels; the image has ${width} x ${height}.`);
  }
  return maskFromRuns(runs.slice(0, count), width, height);
}

function decodeLatin(codes: number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < codes.length; i += 8192) parts.push(String.fromCharCode(...codes.slice(i, i + 8192)));
  return parts.join("");
}
