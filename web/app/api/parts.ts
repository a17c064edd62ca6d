/** Large uploads in parts: the server takes at most 1,000 files in a request, and what arrived is kept. */

const MAX_FILES = 200;
const MAX_BYTES = 256 * 2 ** 20;

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
