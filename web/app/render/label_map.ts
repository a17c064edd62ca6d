/**
 * Which object each pixel shows: one number a pixel, whatever the number of objects.
 *
 * Objects are painted from below to above. An edit repaints only the boxes of what changed, so that a thousand objects
 * cost as little as ten, for drawing as well as for finding the object under the pointer.
 */

import { type Box, boxesMeet, isEmptyBox, uniteBoxes } from "../geometry";
import { type Mask, paintMask } from "../mask/mask";

export interface Layer {
  readonly key: string;
  readonly mask: Mask;
}

const MAX_BOXES = 16;

export class LabelMap {
  /** [W * H], column by column: the slot of the object above all others, 0 for none. */
  readonly slots: Uint16Array;
  private layers: readonly Layer[] = [];
  private readonly slotOf = new Map<string, number>();
  private readonly keys: (string | null)[] = [null];
  private readonly free: number[] = [];

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.slots = new Uint16Array(width * height);
  }

  slot(key: string): number {
    return this.slotOf.get(key) ?? 0;
  }

  keyAt(x: number, y: number): string | null {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return null;
    return this.keys[this.slots[Math.floor(x) * this.height + Math.floor(y)]!] ?? null;
  }

  /** Show these layers, from below to above. @returns the boxes that were painted. */
  update(layers: readonly Layer[]): Box[] {
    const dirty = joinBoxes(changedBoxes(this.layers, layers));
    this.layers = layers;
    const wanted = new Set(layers.map(({ key }) => key));
    for (const [key, slot] of this.slotOf) {
      if (wanted.has(key)) continue;
      this.slotOf.delete(key);
      this.keys[slot] = null;
      this.free.push(slot);
    }
    for (const { key } of layers) {
      if (this.slotOf.has(key)) continue;
      const slot = this.free.pop() ?? this.keys.length;
      this.slotOf.set(key, slot);
      this.keys[slot] = key;
    }
    for (const box of dirty) this.repaint(box);
    return dirty;
  }

  private repaint(box: Box): void {
    const { height, slots } = this;
    for (let x = box[0]; x < box[2]; x++) slots.fill(0, x * height + box[1], x * height + box[3]);
    for (const { key, mask } of this.layers) {
      if (boxesMeet(mask.box, box)) paintMask(mask, slots, this.slotOf.get(key)!, box);
    }
  }
}

/** Where two lists of layers may look different. */
function changedBoxes(before: readonly Layer[], after: readonly Layer[]): Box[] {
  const old = new Map(before.map((layer) => [layer.key, layer.mask]));
  const current = new Map(after.map((layer) => [layer.key, layer.mask]));
  const boxes: Box[] = [];
  for (const { key, mask } of before) if (current.get(key) !== mask) boxes.push(mask.box);
  for (const { key, mask } of after) if (old.get(key) !== mask) boxes.push(mask.box);
  const [keptBefore, keptAfter] = [before.filter((l) => current.has(l.key)), after.filter((l) => old.has(l.key))];
  keptAfter.forEach((layer, i) => {
    if (keptBefore[i]!.key !== layer.key) boxes.push(layer.mask.box);
  });
  return boxes.filter((box) => !isEmptyBox(box));
}

function joinBoxes(boxes: Box[]): Box[] {
  return boxes.length <= MAX_BOXES ? boxes : [boxes.reduce(uniteBoxes)];
}
