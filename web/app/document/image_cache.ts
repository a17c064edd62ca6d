/** Decoded images: the open one and its neighbors, so that going on shows the next at once. */

import { getImage } from "../api/client";

const KEPT = 4;

export class ImageCache {
  private readonly bitmaps = new Map<string, Promise<ImageBitmap>>();

  /** @param image content id, which makes the answer cacheable. */
  get(id: string, image?: string): Promise<ImageBitmap> {
    let bitmap = this.bitmaps.get(id);
    if (!bitmap) {
      bitmap = getImage(id, image).then((blob) => createImageBitmap(blob, { premultiplyAlpha: "none" }));
      bitmap.catch(() => this.bitmaps.delete(id));
    }
    this.bitmaps.delete(id);
    this.bitmaps.set(id, bitmap); // the newest last
    if (this.bitmaps.size > KEPT) this.bitmaps.delete(this.bitmaps.keys().next().value!);
    return bitmap;
  }

  prefetch(ids: readonly (string | null)[]): void {
    for (const id of ids) if (id) void this.get(id).catch(() => undefined);
  }
}
