/** The last scene, kept: moving it copies pixels, and only what is new on the screen is drawn. */

type Rect = readonly [x: number, y: number, width: number, height: number];

interface Target {
  readonly framebuffer: WebGLFramebuffer;
  readonly texture: WebGLTexture;
}

export class SceneCache {
  private targets: [Target, Target] | null = null;
  private size: readonly [number, number] = [0, 0];

  constructor(private readonly gl: WebGL2RenderingContext) {}

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
    gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, to.framebuffer);
    const [x, y, w, h] = [Math.max(0, -dx), Math.max(0, -dy), width - Math.abs(dx), height - Math.abs(dy)];
    gl.blitFramebuffer(x, y, x + w, y + h, x + dx, y + dy, x + dx + w, y + dy + h, gl.COLOR_BUFFER_BIT, gl.NEAREST);
    this.targets = [to, from];
    const strips: Rect[] = [];
    if (dx !== 0) strips.push([dx > 0 ? 0 : width + dx, 0, Math.abs(dx), height]);
    if (dy !== 0) strips.push([0, dy > 0 ? 0 : height + dy, width, Math.abs(dy)]);
    return strips;
  }

  /** Copy the scene to the canvas, and draw into that from now on. */
  show(): void {
    const { gl } = this;
    const [width, height] = this.size;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.clear(gl.COLOR_BUFFER_BIT); // otherwise Chromium clears with the next draw, and with it what was copied
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, this.targets![0].framebuffer);
    gl.blitFramebuffer(0, 0, width, height, 0, 0, width, height, gl.COLOR_BUFFER_BIT, gl.NEAREST);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  private target(): Target {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE7);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, this.size[0], this.size[1]);
    gl.bindTexture(gl.TEXTURE_2D, null);
    const framebuffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    return { framebuffer, texture };
  }
}
