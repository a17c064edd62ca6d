/**
 * The last scene, kept: moving it copies texels, and only what is new on the screen is drawn.
 *
 * Measured where a processor stands in for a graphics card: `copyTexSubImage2D` between textures of one format copies
 * memory (1 ms for 1280 x 800), `blitFramebuffer` does the same pixel by pixel (23 ms; to the canvas 135 ms).
 */

import { Program } from "./program";
import { COPY_SHADER, CORNERS_SHADER } from "./shaders";

export type Rect = readonly [x: number, y: number, width: number, height: number];

interface Target {
  readonly framebuffer: WebGLFramebuffer;
  readonly texture: WebGLTexture;
}

const UNIT = 5;

export class SceneCache {
  private readonly copy: Program;
  private targets: [Target, Target] | null = null;
  private size: readonly [number, number] = [0, 0];

  constructor(private readonly gl: WebGL2RenderingContext) {
    this.copy = new Program(gl, CORNERS_SHADER, COPY_SHADER, { scene: UNIT });
  }

  /** Make room for a screen of this size. @returns whether the last scene is gone. */
  resize(width: number, height: number): boolean {
    if (this.targets && this.size[0] === width && this.size[1] === height) return false;
    const { gl } = this;
    for (const { framebuffer, texture } of this.targets ?? []) {
      gl.deleteFramebuffer(framebuffer);
      gl.deleteTexture(texture);
    }
    this.size = [width, height];
    this.targets = [this.target(), this.target()];
    return true;
  }

  /** Draw into the scene from now on. */
  bind(): void {
    this.gl.bindFramebuffer(this.gl.FRAMEBUFFER, this.targets![0].framebuffer);
  }

  /** Move the scene by pixels, y upwards. @returns what is to be drawn. */
  scroll(dx: number, dy: number): Rect[] {
    const { gl } = this;
    const [width, height] = this.size;
    if (Math.abs(dx) >= width || Math.abs(dy) >= height) return [[0, 0, width, height]];
    const [from, to] = this.targets!;
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, from.framebuffer);
    this.bindTexture(to);
    const [x, y, w, h] = [Math.max(0, -dx), Math.max(0, -dy), width - Math.abs(dx), height - Math.abs(dy)];
    gl.copyTexSubImage2D(gl.TEXTURE_2D, 0, x + dx, y + dy, x, y, w, h);
    this.targets = [to, from];
    const strips: Rect[] = [];
    if (dx !== 0) strips.push([dx > 0 ? 0 : width + dx, 0, Math.abs(dx), height]);
    if (dy !== 0) strips.push([0, dy > 0 ? 0 : height + dy, width, Math.abs(dy)]);
    return strips;
  }

  /** Copy parts of the scene to the canvas, and draw into that from now on. */
  show(rects: readonly Rect[]): void {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    this.bindTexture(this.targets![0]);
    this.copy.use({});
    gl.enable(gl.SCISSOR_TEST);
    for (const [x, y, width, height] of rects) {
      gl.scissor(x, y, width, height);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }
    gl.disable(gl.SCISSOR_TEST);
  }

  private bindTexture({ texture }: Target): void {
    this.gl.activeTexture(this.gl.TEXTURE0 + UNIT);
    this.gl.bindTexture(this.gl.TEXTURE_2D, texture);
  }

  private target(): Target {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0 + UNIT);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, this.size[0], this.size[1]);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    const framebuffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    return { framebuffer, texture };
  }
}
