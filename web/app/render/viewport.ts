/** Which part of the image is shown, and how large. Coordinates of the screen are CSS pixels of the canvas. */

import { signal } from "@preact/signals";

import { type Box, clamp, type XY } from "../geometry";

export interface View {
  /** CSS pixels a pixel of the image. */
  readonly zoom: number;
  /** Where the image's corner lies in the canvas. */
  readonly left: number;
  readonly top: number;
}

export interface Margins {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

const MIN_ZOOM = 0.02;
const MAX_ZOOM = 64;
/** So many CSS pixels of the image stay in sight. */
const IN_SIGHT = 60;
const ZOOM_STEPS = [0.05, 0.1, 0.25, 0.33, 0.5, 0.67, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

export class Viewport {
  readonly view = signal<View>({ zoom: 1, left: 0, top: 0 });
  /** Of the canvas in CSS pixels. */
  readonly size = signal<XY>([1, 1]);
  private image: XY = [1, 1];
  private margins: Margins = { left: 24, top: 24, right: 24, bottom: 24 };
  private isFitted = true;

  setImage(width: number, height: number): void {
    this.image = [width, height];
    this.fit();
  }

  setCanvas(width: number, height: number): void {
    if (this.size.value[0] === width && this.size.value[1] === height) return;
    this.size.value = [width, height];
    if (this.isFitted) this.fit();
  }

  setMargins(margins: Margins): void {
    this.margins = margins;
    if (this.isFitted) this.fit();
  }

  toImage([x, y]: XY): XY {
    const { zoom, left, top } = this.view.value;
    return [(x - left) / zoom, (y - top) / zoom];
  }

  toScreen([x, y]: XY): XY {
    const { zoom, left, top } = this.view.value;
    return [x * zoom + left, y * zoom + top];
  }

  /** All of the image, as large as there is room. */
  fit(): void {
    this.showBox([0, 0, this.image[0], this.image[1]], 8);
    this.isFitted = true;
  }

  /** A part of the image, as large as there is room. */
  showBox([x0, y0, x1, y1]: Box, maxZoom = 8): void {
    const { left, top, right, bottom } = this.margins;
    const [width, height] = [this.size.value[0] - left - right, this.size.value[1] - top - bottom];
    const zoom = clamp(Math.min(width / (x1 - x0), height / (y1 - y0), maxZoom), MIN_ZOOM, MAX_ZOOM);
    this.set({
      zoom,
      left: left + (width - (x1 - x0) * zoom) / 2 - x0 * zoom,
      top: top + (height - (y1 - y0) * zoom) / 2 - y0 * zoom,
    });
  }

  /** One pixel of the image as one pixel of the screen. */
  actualSize(): void {
    this.zoomAt(this.center(), 1 / (globalThis.devicePixelRatio || 1) / this.view.value.zoom);
  }

  center(): XY {
    return [this.size.value[0] / 2, this.size.value[1] / 2];
  }

  /** Multiply the zoom; the pixel of the image at this place of the screen stays there. */
  zoomAt([x, y]: XY, factor: number): void {
    const { zoom: before, left, top } = this.view.value;
    const zoom = clamp(before * factor, MIN_ZOOM, MAX_ZOOM);
    this.set({ zoom, left: x - ((x - left) / before) * zoom, top: y - ((y - top) / before) * zoom });
  }

  zoomStep(direction: 1 | -1): void {
    const { zoom } = this.view.value;
    const steps = direction > 0 ? ZOOM_STEPS : [...ZOOM_STEPS].reverse();
    const next = steps.find((step) => (direction > 0 ? step > zoom * 1.01 : step < zoom / 1.01)) ?? zoom;
    this.zoomAt(this.center(), next / zoom);
  }

  pan(dx: number, dy: number): void {
    const { zoom, left, top } = this.view.value;
    this.set({ zoom, left: left + dx, top: top + dy });
  }

  /** Move as little as needed to have a pixel of the image in sight. */
  reveal(at: XY): void {
    const [x, y] = this.toScreen(at);
    const [width, height] = this.size.value;
    const dx = clamp(x, IN_SIGHT, width - IN_SIGHT) - x;
    const dy = clamp(y, IN_SIGHT, height - IN_SIGHT) - y;
    if (dx !== 0 || dy !== 0) this.pan(dx, dy);
  }

  private set({ zoom, left, top }: View): void {
    this.isFitted = false;
    const [width, height] = this.size.value;
    this.view.value = {
      zoom,
      left: clamp(left, IN_SIGHT - this.image[0] * zoom, width - IN_SIGHT),
      top: clamp(top, IN_SIGHT - this.image[1] * zoom, height - IN_SIGHT),
    };
  }
}
