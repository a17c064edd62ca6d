/** The canvases of the editor: keeps textures equal to the state, and draws a frame when something changed. */

import { effect, signal } from "@preact/signals";

import type { Rgb } from "./renderer";
import { type Box, EMPTY_BOX, isEmptyBox, uniteBoxes, type XY } from "../geometry";
import { type Mask, paintMask } from "../mask/mask";
import { appearance } from "../settings";
import { boxOfLogits } from "../predict/logits";
import { LabelMap, type Layer } from "./label_map";
import { Renderer } from "./renderer";
import type { Viewport } from "./viewport";

export const SELECTED = 1;
export const HOVERED = 2;
export const SUGGESTION = 4;
export const PATTERN_SHIFT = 4;

export interface Entry {
  readonly color: Rgb;
  readonly flags: number;
}

export interface PreviewImage {
  readonly logits: Int8Array;
  readonly side: number;
  readonly scale: XY;
}

export interface Preview {
  readonly color: Rgb;
  readonly candidate: number;
}

type DrawOverlay = (context: CanvasRenderingContext2D) => void;

export class Surface {
  private renderer: Renderer;
  labelMap = new LabelMap(1, 1);
  /** Column by column: 1 on the mask of the object that is edited. Tools paint here, then call `touchActive`. */
  activeBits = new Uint8Array(1);
  /** The graphics card was taken away. It comes back by itself. */
  readonly isLost = signal(false);
  /** How long the last frames took, for measurements. */
  readonly frameTimes: number[] = [];
  private layers: readonly Layer[] = [];
  private activeMask: Mask | null = null;
  private activeStyle: { color: Rgb; pattern: number } | null = null;
  private activeBox: Box = EMPTY_BOX;
  private previewImage: PreviewImage | null = null;
  private preview: (Preview & { readonly box: Box }) | null = null;
  private showsMasks = true;
  private dim = 0;
  private background: Rgb = [20, 21, 24];
  private bitmap: ImageBitmap | null = null;
  private frame = 0;
  private readonly disposers: (() => void)[] = [];
  private readonly palette = new Uint8Array(65536 * 4);
  private readonly context: CanvasRenderingContext2D;

  constructor(
    canvas: HTMLCanvasElement,
    private readonly overlay: HTMLCanvasElement,
    private readonly viewport: Viewport,
    private readonly drawOverlay: DrawOverlay,
  ) {
    this.renderer = new Renderer(canvas);
    this.context = overlay.getContext("2d")!;
    const observer = new ResizeObserver(() => this.resizeCanvas());
    observer.observe(canvas);
    const onLost = (event: Event): void => {
      event.preventDefault(); // or it never comes back
      this.isLost.value = true;
    };
    const onRestored = (): void => void this.restore(canvas);
    canvas.addEventListener("webglcontextlost", onLost);
    canvas.addEventListener("webglcontextrestored", onRestored);
    this.disposers.push(() => {
      observer.disconnect();
      canvas.removeEventListener("webglcontextlost", onLost);
      canvas.removeEventListener("webglcontextrestored", onRestored);
    });
    this.disposers.push(
      effect(() => {
        void [viewport.view.value, appearance.value];
        this.requestFrame();
      }),
    );
  }

  dispose(): void {
    for (const dispose of this.disposers) dispose();
    cancelAnimationFrame(this.frame);
  }

  /** Begin with an image of this size; its pixels follow. */
  resize(width: number, height: number): void {
    this.renderer.resize(width, height);
    this.labelMap = new LabelMap(width, height);
    this.activeBits = new Uint8Array(width * height);
    this.layers = [];
    this.palette.fill(0);
    this.activeMask = null;
    this.activeBox = EMPTY_BOX;
    this.preview = null;
    this.bitmap = null;
    this.requestFrame();
  }

  async setImage(bitmap: ImageBitmap): Promise<void> {
    this.bitmap = bitmap;
    await this.renderer.setImage(bitmap);
    this.requestFrame();
  }

  setLayers(layers: readonly Layer[]): void {
    this.layers = layers;
    for (const box of this.labelMap.update(layers)) this.renderer.setLabelMap(this.labelMap.slots, box);
    this.requestFrame();
  }

  setPalette(entryOf: (key: string) => Entry): void {
    const changed: Box[] = [];
    let last = 0;
    for (const { key, mask } of this.layers) {
      const slot = this.labelMap.slot(key);
      const { color, flags } = entryOf(key);
      const entry = [...color, flags];
      last = Math.max(last, slot);
      if (entry.every((value, i) => this.palette[slot * 4 + i] === value)) continue;
      this.palette.set(entry, slot * 4);
      changed.push(mask.box);
    }
    if (changed.length === 0) return;
    this.renderer.setPalette(this.palette, last + 1, changed);
    this.requestFrame();
  }

  /** Show this mask as the one being edited. A mask whose pixels a tool has painted already costs nothing. */
  setActive(mask: Mask | null, style: { color: Rgb; pattern: number } | null, isPainted = false): void {
    this.activeStyle = style;
    if (mask !== this.activeMask) {
      const [before, after] = [this.activeMask?.box ?? EMPTY_BOX, mask?.box ?? EMPTY_BOX];
      this.activeMask = mask;
      this.activeBox = after;
      if (!isPainted) {
        this.clearBits(before);
        if (mask) paintMask(mask, this.activeBits, 1);
        this.touchActive(uniteBoxes(before, after));
      }
    }
    this.requestFrame();
  }

  touchActive(box: Box): void {
    this.activeBox = uniteBoxes(this.activeBox, box);
    if (!isEmptyBox(box)) this.renderer.setActive(this.activeBits, box);
    this.requestFrame();
  }

  /** Forget what was painted in a box and show the active mask again. */
  restoreActive(box: Box): void {
    this.clearBits(box);
    if (this.activeMask) paintMask(this.activeMask, this.activeBits, 1, box);
    this.touchActive(box);
  }

  setPreviewImage({ logits, side, scale }: PreviewImage): void {
    this.previewImage = { logits, side, scale };
    this.renderer.setLogits(logits, side, logits.length / (side * side), scale);
  }

  setPreview(preview: Preview | null): void {
    this.preview = preview && { ...preview, box: this.previewBox(preview.candidate) };
    this.requestFrame();
  }

  setScene(scene: { showsMasks?: boolean; dim?: number; background?: Rgb }): void {
    this.showsMasks = scene.showsMasks ?? this.showsMasks;
    this.dim = scene.dim ?? this.dim;
    this.background = scene.background ?? this.background;
    this.requestFrame();
  }

  requestFrame(): void {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    this.frame = 0;
    if (this.renderer.isLost()) return;
    const started = performance.now();
    // Not clientWidth, which lays the page out in the middle of a frame.
    const ratio = this.overlay.width / this.viewport.size.peek()[0];
    this.renderer.draw({
      view: this.viewport.view.peek(),
      ratio,
      appearance: appearance.peek(),
      showLabelMap: this.showsMasks,
      dim: this.dim,
      background: this.background,
      active: this.showsMasks && this.activeStyle ? { ...this.activeStyle, box: this.activeBox } : null,
      preview: this.preview,
    });
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.clearRect(0, 0, ...this.viewport.size.peek());
    this.context.fillStyle = "rgb(0 0 0 / 1%)"; // a frame that is cleared alone is not always shown by Chromium
    this.context.fillRect(0, 0, 1, 1);
    this.drawOverlay(this.context);
    this.frameTimes.push(performance.now() - started);
    if (this.frameTimes.length > 300) this.frameTimes.shift();
  }

  /** Give a new graphics context all that the lost one had. */
  private async restore(canvas: HTMLCanvasElement): Promise<void> {
    const { width, height, slots } = this.labelMap;
    const all: Box = [0, 0, width, height];
    this.renderer = new Renderer(canvas);
    this.renderer.resize(width, height);
    this.renderer.setLabelMap(slots, all);
    this.renderer.setPalette(this.palette, this.palette.length / 4, []);
    this.renderer.setActive(this.activeBits, all);
    if (this.previewImage) this.setPreviewImage(this.previewImage);
    if (this.bitmap) await this.renderer.setImage(this.bitmap);
    this.isLost.value = false;
    this.requestFrame();
  }

  private previewBox(candidate: number): Box {
    if (!this.previewImage) return EMPTY_BOX;
    const { logits, side, scale } = this.previewImage;
    const { width, height } = this.labelMap;
    return boxOfLogits(logits.subarray(candidate * side * side, (candidate + 1) * side * side), side, scale, width, height);
  }

  private clearBits(box: Box): void {
    const { height } = this.labelMap;
    for (let x = box[0]; x < box[2]; x++) this.activeBits.fill(0, x * height + box[1], x * height + box[3]);
  }

  private resizeCanvas(): void {
    const ratio = Math.max(1, devicePixelRatio || 1);
    for (const canvas of [this.renderer.canvas, this.overlay]) {
      const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
    }
    this.viewport.setCanvas(this.overlay.clientWidth, this.overlay.clientHeight);
    if (this.frame) cancelAnimationFrame(this.frame);
    this.draw(); // a resized canvas is empty: no frame without content
  }
}
