/** Draws the image, the masks and the preview with WebGL2. It knows textures, nothing of objects or tools. */

import { type Box, boxesMeet, growBox, intersectBoxes, isEmptyBox, type XY } from "../geometry";
import { FRAGMENT_SHADER, VERTEX_SHADER } from "./shaders";
import type { View } from "./viewport";

export type Rgb = readonly [number, number, number];

export interface Appearance {
  readonly brightness: number;
  readonly contrast: number;
  readonly gamma: number;
  readonly opacity: number;
  readonly outlineOnly: boolean;
  readonly patterns: boolean;
}

export interface Frame {
  readonly view: View;
  readonly appearance: Appearance;
  readonly showLabelMap: boolean;
  /** 0 to 1: how far the image steps back behind the masks. */
  readonly dim: number;
  readonly background: Rgb;
  readonly active: { readonly color: Rgb; readonly pattern: number } | null;
  readonly preview: { readonly color: Rgb; readonly candidate: number } | null;
}

/** WebGL2 is missing, or was lost. */
export class NoWebGL2Error extends Error {
  override name = "NoWebGL2Error";
}

const PALETTE_SIDE = 256;
const MAX_TILE = 4096;

interface Tile {
  readonly box: Box;
  readonly image: WebGLTexture;
  readonly labelMap: WebGLTexture;
  readonly active: WebGLTexture;
}

const UNIFORMS = [
  "tileBox", "imageToClip", "image", "labelMap", "activeMask", "palette", "logits", "zoom", "outlineWidth", "adjustment",
  "opacity", "outlineOnly", "patterns", "showLabelMap", "activeColor", "activePattern", "previewColor", "candidate",
  "logitsScale", "dim",
] as const;

export class Renderer {
  private readonly gl: WebGL2RenderingContext;
  private readonly uniforms: Record<(typeof UNIFORMS)[number], WebGLUniformLocation | null>;
  private readonly palette: WebGLTexture;
  private readonly logits: WebGLTexture;
  private readonly maxTile: number;
  private tiles: Tile[] = [];
  private size: XY = [0, 0];
  private logitsScale: XY = [1, 1];

  constructor(readonly canvas: HTMLCanvasElement) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, stencil: false, powerPreference: "high-performance" });
    if (!gl) throw new NoWebGL2Error();
    this.gl = gl;
    this.maxTile = Math.min(MAX_TILE, gl.getParameter(gl.MAX_TEXTURE_SIZE) as number);
    const program = link(gl);
    gl.useProgram(program);
    gl.bindVertexArray(gl.createVertexArray());
    this.uniforms = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(program, name)])) as Renderer["uniforms"];
    gl.uniform1i(this.uniforms.image, 0);
    gl.uniform1i(this.uniforms.labelMap, 1);
    gl.uniform1i(this.uniforms.activeMask, 2);
    gl.uniform1i(this.uniforms.palette, 3);
    gl.uniform1i(this.uniforms.logits, 4);
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
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    }
  }

  /** Take a box of the label map, which lies column by column. */
  setLabelMap(slots: Uint16Array, box: Box): void {
    const { gl } = this;
    this.upload(box, "labelMap", (x, y, w, h) => gl.texSubImage2D(gl.TEXTURE_2D, 0, x, y, w, h, gl.RED_INTEGER, gl.UNSIGNED_SHORT, slots));
  }

  /** Take a box of the active mask, which lies column by column: 1 on the mask. */
  setActive(bits: Uint8Array, box: Box): void {
    const { gl } = this;
    this.upload(box, "active", (x, y, w, h) => gl.texSubImage2D(gl.TEXTURE_2D, 0, x, y, w, h, gl.RED, gl.UNSIGNED_BYTE, bits));
  }

  /** [65536, 4]: the color of each slot, and in the last place its flags. */
  setPalette(entries: Uint8Array, count: number): void {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE3);
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, PALETTE_SIDE, Math.ceil(count / PALETTE_SIDE), gl.RGBA, gl.UNSIGNED_BYTE, entries);
  }

  /** Take logits [candidates, side, side]; `scale` maps pixels of the image to 0 to 1 in them. */
  setLogits(logits: Int8Array, side: number, candidates: number, scale: XY): void {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE4);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.logits);
    gl.texImage3D(gl.TEXTURE_2D_ARRAY, 0, gl.R8_SNORM, side, side, candidates, 0, gl.RED, gl.BYTE, logits);
    this.logitsScale = scale;
  }

  draw({ view, appearance, showLabelMap, dim, background, active, preview }: Frame): void {
    const { gl, uniforms, canvas } = this;
    const ratio = canvas.width / Math.max(1, canvas.clientWidth);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(background[0] / 255, background[1] / 255, background[2] / 255, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const scale = [(view.zoom * ratio * 2) / canvas.width, (-view.zoom * ratio * 2) / canvas.height] as const;
    gl.uniform4f(uniforms.imageToClip, scale[0], scale[1], (view.left * ratio * 2) / canvas.width - 1, 1 - (view.top * ratio * 2) / canvas.height);
    gl.uniform1f(uniforms.zoom, view.zoom * ratio);
    gl.uniform1f(uniforms.outlineWidth, 1.5 * Math.max(1, ratio));
    gl.uniform3f(uniforms.adjustment, appearance.brightness, appearance.contrast, appearance.gamma);
    gl.uniform1f(uniforms.opacity, appearance.opacity);
    gl.uniform1i(uniforms.outlineOnly, Number(appearance.outlineOnly));
    gl.uniform1i(uniforms.patterns, Number(appearance.patterns));
    gl.uniform1i(uniforms.showLabelMap, Number(showLabelMap));
    gl.uniform1f(uniforms.dim, dim);
    this.color(uniforms.activeColor, active?.color, Math.max(0.08, appearance.opacity));
    gl.uniform1f(uniforms.activePattern, active?.pattern ?? 0);
    this.color(uniforms.previewColor, preview?.color, appearance.outlineOnly ? 0.02 : 0.5);
    gl.uniform1f(uniforms.candidate, preview?.candidate ?? 0);
    gl.uniform2f(uniforms.logitsScale, ...this.logitsScale);
    const shown: Box = [-view.left / view.zoom, -view.top / view.zoom, (canvas.clientWidth - view.left) / view.zoom, (canvas.clientHeight - view.top) / view.zoom];
    for (const tile of this.tiles) if (boxesMeet(tile.box, shown)) this.drawTile(tile, view.zoom * ratio);
  }

  isLost(): boolean {
    return this.gl.isContextLost();
  }

  private drawTile({ box, image, labelMap, active }: Tile, zoom: number): void {
    const { gl } = this;
    gl.uniform4f(this.uniforms.tileBox, ...box);
    [image, labelMap, active].forEach((texture, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      if (unit === 0) gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, zoom >= 3 ? gl.NEAREST : gl.LINEAR);
    });
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
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

  private color(uniform: WebGLUniformLocation | null, rgb: Rgb | undefined, alpha: number): void {
    const [r, g, b] = rgb ?? [0, 0, 0];
    this.gl.uniform4f(uniform, r / 255, g / 255, b / 255, rgb ? alpha : 0);
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

function link(gl: WebGL2RenderingContext): WebGLProgram {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]] as const) {
    const shader = gl.createShader(kind)!;
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new NoWebGL2Error(gl.getShaderInfoLog(shader) ?? "");
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new NoWebGL2Error(gl.getProgramInfoLog(program) ?? "");
  return program;
}
