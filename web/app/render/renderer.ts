/** Draws the image, the masks and the preview with WebGL2. It knows textures, nothing of objects or tools. */

import { type Box, clamp, growBox, intersectBoxes, isEmptyBox, uniteBoxes, type XY } from "../geometry";
import { NoWebGL2Error, Program } from "./program";
import { type Rect, SceneCache } from "./scene_cache";
import { ACTIVE_SHADER, PREVIEW_SHADER, SCENE_SHADER, VERTEX_SHADER } from "./shaders";
import type { View } from "./viewport";

export type Rgb = readonly [number, number, number];

export interface Appearance {
  readonly brightness: number;
  readonly contrast: number;
  readonly gamma: number;
  readonly opacity: number;
  readonly outlineOnly: boolean;
  readonly patterns: boolean;
  /** Another color for each object, not for each label. */
  readonly colorsObjects: boolean;
}

export interface Frame {
  readonly view: View;
  /** Pixels of the canvas a CSS pixel. */
  readonly ratio: number;
  readonly appearance: Appearance;
  readonly showLabelMap: boolean;
  /** 0 to 1: how far the image steps back behind the masks. */
  readonly dim: number;
  readonly background: Rgb;
  /** Nothing is drawn outside of the boxes. */
  readonly active: { readonly color: Rgb; readonly pattern: number; readonly box: Box } | null;
  readonly preview: { readonly color: Rgb; readonly candidate: number; readonly box: Box } | null;
}

const PALETTE_SIDE = 256;
const MAX_TILE = 4096;

interface Tile {
  readonly box: Box;
  readonly image: WebGLTexture;
  readonly labelMap: WebGLTexture;
  readonly active: WebGLTexture;
}

/** Textures have one place each, in all programs. */
const UNITS = { image: 0, labelMap: 1, activeMask: 2, palette: 3, logits: 4 } as const;
const MAX_DIRTY = 12;

export class Renderer {
  private readonly gl: WebGL2RenderingContext;
  private readonly scene: Program;
  private readonly active: Program;
  private readonly preview: Program;
  private readonly cache: SceneCache;
  private readonly palette: WebGLTexture;
  private readonly logits: WebGLTexture;
  private readonly maxTile: number;
  private tiles: Tile[] = [];
  private size: XY = [0, 0];
  private logitsScale: XY = [1, 1];
  /** Boxes of the image that changed since the last frame; null: all of it. */
  private dirty: Box[] | null = null;
  private drawn: { key: string; left: number; top: number } | null = null;
  /** Where the canvas shows the active mask and the preview above the scene. */
  private marked: Rect[] = [];

  constructor(readonly canvas: HTMLCanvasElement) {
    // The canvas is kept between frames: only what changed is drawn.
    const gl = canvas.getContext("webgl2", {
      alpha: false, antialias: false, depth: false, stencil: false, preserveDrawingBuffer: true, powerPreference: "high-performance",
    });
    if (!gl) throw new NoWebGL2Error();
    this.gl = gl;
    this.maxTile = Math.min(MAX_TILE, gl.getParameter(gl.MAX_TEXTURE_SIZE) as number);
    [this.scene, this.active, this.preview] = [SCENE_SHADER, ACTIVE_SHADER, PREVIEW_SHADER].map(
      (shader) => new Program(gl, VERTEX_SHADER, shader, UNITS),
    ) as [Program, Program, Program];
    this.cache = new SceneCache(gl);
    gl.bindVertexArray(gl.createVertexArray());
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    this.palette = this.texture(gl.TEXTURE_2D, gl.NEAREST);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, PALETTE_SIDE, PALETTE_SIDE);
    this.logits = this.texture(gl.TEXTURE_2D_ARRAY, gl.LINEAR);
    gl.texImage3D(gl.TEXTURE_2D_ARRAY, 0, gl.R8_SNORM, 1, 1, 1, 0, gl.RED, gl.BYTE, new Int8Array([-127]));
  }

  /** Prepare for an image; its pixels, masks and preview are empty. */
  resize(width: number, height: number): void {
    const { gl } = this;
    for (const { image, labelMap, active } of this.tiles) for (const t of [image, labelMap, active]) gl.deleteTexture(t);
    this.size = [width, height];
    this.tiles = [];
    this.dirty = null;
    for (let x = 0; x < width; x += this.maxTile) {
      for (let y = 0; y < height; y += this.maxTile) {
        const box: Box = [x, y, Math.min(width, x + this.maxTile), Math.min(height, y + this.maxTile)];
        const [w, h] = [box[2] - x, box[3] - y];
        const image = this.texture(gl.TEXTURE_2D, gl.LINEAR);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array([60, 62, 66, 255]));
        const labelMap = this.texture(gl.TEXTURE_2D, gl.NEAREST);
        gl.texStorage2D(gl.TEXTURE_2D, 1, gl.R16UI, h, w);
        const active = this.texture(gl.TEXTURE_2D, gl.NEAREST);
        gl.texStorage2D(gl.TEXTURE_2D, 1, gl.R8, h, w);
        this.tiles.push({ box, image, labelMap, active });
      }
    }
  }

  async setImage(bitmap: ImageBitmap): Promise<void> {
    const { gl } = this;
    for (const { box, image } of this.tiles) {
      const part = this.tiles.length === 1 ? bitmap : await createImageBitmap(bitmap, box[0], box[1], box[2] - box[0], box[3] - box[1]);
      gl.activeTexture(gl.TEXTURE0);
      gl.bindTexture(gl.TEXTURE_2D, image);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, part);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_NEAREST);
    }
    this.dirty = null;
  }

  /** Take a box of the label map, which lies column by column. */
  setLabelMap(slots: Uint16Array, box: Box): void {
    const { gl } = this;
    this.upload(box, "labelMap", (x, y, w, h) => gl.texSubImage2D(gl.TEXTURE_2D, 0, x, y, w, h, gl.RED_INTEGER, gl.UNSIGNED_SHORT, slots));
    this.touch(box);
  }

  /** Take a box of the active mask, which lies column by column: 1 on the mask. */
  setActive(bits: Uint8Array, box: Box): void {
    const { gl } = this;
    this.upload(box, "active", (x, y, w, h) => gl.texSubImage2D(gl.TEXTURE_2D, 0, x, y, w, h, gl.RED, gl.UNSIGNED_BYTE, bits));
  }

  /** [65536, 4]: the color of each slot, and in the last place its flags. @param boxes where changed slots lie. */
  setPalette(entries: Uint8Array, count: number, boxes: readonly Box[]): void {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE3);
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, PALETTE_SIDE, Math.ceil(count / PALETTE_SIDE), gl.RGBA, gl.UNSIGNED_BYTE, entries);
    for (const box of boxes) this.touch(box);
  }

  /** Take logits [candidates, side, side]; `scale` maps pixels of the image to 0 to 1 in them. */
  setLogits(logits: Int8Array, side: number, candidates: number, scale: XY): void {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE4);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.logits);
    gl.texImage3D(gl.TEXTURE_2D_ARRAY, 0, gl.R8_SNORM, side, side, candidates, 0, gl.RED, gl.BYTE, logits);
    this.logitsScale = scale;
  }

  draw(frame: Frame): void {
    const { gl, canvas } = this;
    const { ratio } = frame;
    // On whole pixels of the screen, so that a scene that moved can be copied.
    const [left, top] = [Math.round(frame.view.left * ratio), Math.round(frame.view.top * ratio)];
    const zoom = frame.view.zoom * ratio;
    gl.viewport(0, 0, canvas.width, canvas.height);
    const common = this.commonUniforms(frame, zoom, left, top, ratio);
    const rectOf = (box: Box): Rect => this.rectOf(box, zoom, left, top, Number(common["outlineWidth"]));
    const changed = this.drawScene(frame, common, zoom, left, top);
    const marked = [frame.active, frame.preview].flatMap((mark) => (mark && !isEmptyBox(mark.box) ? [rectOf(mark.box)] : []));
    this.cache.show(changed === "all" ? [[0, 0, canvas.width, canvas.height]] : joinRects([...changed, ...this.marked, ...marked]));
    this.marked = marked;
    gl.enable(gl.BLEND);
    gl.enable(gl.SCISSOR_TEST);
    if (frame.active) {
      const { color, pattern, box } = frame.active;
      this.drawTiles(this.active, rectOf(box), { ...common, markColor: unit(color), pattern });
    }
    if (frame.preview) {
      const { color, candidate, box } = frame.preview;
      this.drawTiles(this.preview, rectOf(box), { ...common, markColor: unit(color), candidate, logitsScale: this.logitsScale });
    }
    gl.disable(gl.SCISSOR_TEST);
    gl.disable(gl.BLEND);
  }

  isLost(): boolean {
    return this.gl.isContextLost();
  }

  private commonUniforms({ appearance }: Frame, zoom: number, left: number, top: number, ratio: number): Uniforms {
    const { width, height } = this.canvas;
    return {
      imageToClip: [(zoom * 2) / width, (-zoom * 2) / height, (left * 2) / width - 1, 1 - (top * 2) / height],
      zoom,
      origin: [left, height - top],
      outlineWidth: 1.5 * Math.max(1, ratio),
      opacity: appearance.opacity,
      outlineOnly: appearance.outlineOnly,
      patterns: appearance.patterns,
    };
  }

  /** Bring the kept scene up to date: all of it, or what moved into sight and what changed. @returns what changed on the screen. */
  private drawScene(frame: Frame, common: Uniforms, zoom: number, left: number, top: number): "all" | Rect[] {
    const { gl, canvas, drawn } = this;
    const { appearance, showLabelMap, dim, background } = frame;
    const key = JSON.stringify([zoom, appearance, showLabelMap, dim, background]);
    const isGone = this.cache.resize(canvas.width, canvas.height);
    let rects: Rect[];
    let isAll = isGone || !this.dirty || !drawn || drawn.key !== key;
    if (isAll) rects = [[0, 0, canvas.width, canvas.height]];
    else {
      const [dx, dy] = [left - drawn!.left, drawn!.top - top];
      isAll = dx !== 0 || dy !== 0;
      const boxes = this.dirty!.length > MAX_DIRTY ? [this.dirty!.reduce(uniteBoxes)] : this.dirty!;
      const dirty = boxes.map((box) => this.rectOf(box, zoom, left, top, Number(common["outlineWidth"])));
      rects = joinRects([...(isAll ? this.cache.scroll(dx, dy) : []), ...dirty]);
    }
    this.drawn = { key, left, top };
    this.dirty = [];
    if (rects.length === 0) return isAll ? "all" : [];
    this.cache.bind();
    const { brightness, contrast, gamma } = appearance;
    const isAdjusted = brightness !== 0 || contrast !== 1 || gamma !== 1;
    this.scene.use({ ...common, isAdjusted, adjustment: [brightness, contrast, gamma], showLabelMap, dim });
    gl.clearColor(background[0] / 255, background[1] / 255, background[2] / 255, 1);
    gl.enable(gl.SCISSOR_TEST);
    for (const [x, y, width, height] of rects) {
      gl.scissor(x, y, width, height);
      gl.clear(gl.COLOR_BUFFER_BIT);
      for (const tile of this.tiles) this.drawTile(this.scene, tile, zoom);
    }
    gl.disable(gl.SCISSOR_TEST);
    return isAll ? "all" : rects;
  }

  private drawTiles(program: Program, [x, y, width, height]: Rect, uniforms: Uniforms): void {
    if (width <= 0 || height <= 0) return;
    this.gl.scissor(x, y, width, height);
    program.use(uniforms);
    for (const tile of this.tiles) this.drawTile(program, tile, Number(uniforms["zoom"]));
  }

  private drawTile(program: Program, { box, image, labelMap, active }: Tile, zoom: number): void {
    const { gl } = this;
    program.set({ tileBox: box });
    [image, labelMap, active].forEach((texture, place) => {
      gl.activeTexture(gl.TEXTURE0 + place);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      if (place === UNITS.image) gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, zoom >= 3 ? gl.NEAREST : gl.LINEAR);
    });
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  /** Where a box of the image lies on the screen, with its outline; y upwards. */
  private rectOf(box: Box, zoom: number, left: number, top: number, outline: number): Rect {
    const { width, height } = this.canvas;
    const margin = Math.ceil(outline * 2) + 1;
    const x0 = clamp(Math.floor(box[0] * zoom + left) - margin, 0, width);
    const x1 = clamp(Math.ceil(box[2] * zoom + left) + margin, 0, width);
    const y0 = clamp(Math.floor(box[1] * zoom + top) - margin, 0, height);
    const y1 = clamp(Math.ceil(box[3] * zoom + top) + margin, 0, height);
    return [x0, height - y1, x1 - x0, y1 - y0];
  }

  private touch(box: Box): void {
    if (!isEmptyBox(box)) this.dirty?.push(box);
  }

  private upload(box: Box, kind: "labelMap" | "active", write: (x: number, y: number, w: number, h: number) => void): void {
    const { gl } = this;
    const wanted = growBox(box, 0, this.size[0], this.size[1]);
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, this.size[1]); // a row of the texture is a column of the image
    for (const tile of this.tiles) {
      const part = intersectBoxes(wanted, tile.box);
      if (isEmptyBox(part)) continue;
      gl.activeTexture(kind === "labelMap" ? gl.TEXTURE1 : gl.TEXTURE2);
      gl.bindTexture(gl.TEXTURE_2D, tile[kind]);
      gl.pixelStorei(gl.UNPACK_SKIP_PIXELS, part[1]);
      gl.pixelStorei(gl.UNPACK_SKIP_ROWS, part[0]);
      write(part[1] - tile.box[1], part[0] - tile.box[0], part[3] - part[1], part[2] - part[0]);
    }
    for (const name of [gl.UNPACK_ROW_LENGTH, gl.UNPACK_SKIP_PIXELS, gl.UNPACK_SKIP_ROWS]) gl.pixelStorei(name, 0);
  }

  private texture(target: number, filter: number): WebGLTexture {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0 + 7);
    gl.bindTexture(target, texture);
    gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, filter);
    gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, filter);
    gl.texParameteri(target, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(target, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }
}

type Uniforms = Readonly<Record<string, number | boolean | readonly number[]>>;

const unit = ([r, g, b]: Rgb): [number, number, number] => [r / 255, g / 255, b / 255];

/** Fewer rectangles with at least the same pixels, none empty: those that share much become one. */
export function joinRects(rects: readonly Rect[]): Rect[] {
  const joined: Rect[] = [];
  for (let rect of rects) {
    if (rect[2] <= 0 || rect[3] <= 0) continue;
    for (let i = joined.length - 1; i >= 0; i--) {
      const other = joined[i]!;
      const [x, y] = [Math.min(rect[0], other[0]), Math.min(rect[1], other[1])];
      const both: Rect = [
        x, y, Math.max(rect[0] + rect[2], other[0] + other[2]) - x, Math.max(rect[1] + rect[3], other[1] + other[3]) - y,
      ];
      if (both[2] * both[3] > rect[2] * rect[3] + other[2] * other[3]) continue;
      joined.splice(i, 1);
      rect = both;
    }
    joined.push(rect);
  }
  return joined;
}
