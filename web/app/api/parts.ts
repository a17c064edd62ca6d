/** Uploads in parts, small enough to show progress by. */

const MAX_FILES = 50;
const MAX_BYTES = 64 * 2 ** 20;

/** Files in their order. One that is larger than a part is a part by itself. */
export function inParts<F extends { readonly size: number }>(files: readonly F[], maxFiles = MAX_FILES, maxBytes = MAX_BYTES): F[][] {
  const parts: F[][] = [];
  let bytes = 0;
  for (const file of files) {
    const part = parts.at(-1);
    if (part && part.length < maxFiles && bytes + file.size <= maxBytes) {
      part.push(file);
      bytes += file.size;
    } else {
      parts.push([file]);
      bytes = file.size;
    }
  }
  return parts;
}
