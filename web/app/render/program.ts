/** Programs of WebGL2, and what they are told. */

/** WebGL2 is missing, or does not take the shaders. */
export class NoWebGL2Error extends Error {
  override name = "NoWebGL2Error";
}

type Value = number | boolean | readonly number[];

/** A program and its uniforms by name; names that it does not use are ignored. */
export class Program {
  private readonly program: WebGLProgram;
  private readonly locations = new Map<string, { location: WebGLUniformLocation; type: number }>();

  constructor(
    private readonly gl: WebGL2RenderingContext,
    vertexShader: string,
    fragmentShader: string,
    samplers: Readonly<Record<string, number>>,
  ) {
    const program = gl.createProgram();
    this.program = program;
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertexShader], [gl.FRAGMENT_SHADER, fragmentShader]] as const) {
      const shader = gl.createShader(kind)!;
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new NoWebGL2Error(gl.getShaderInfoLog(shader) ?? "");
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new NoWebGL2Error(gl.getProgramInfoLog(program) ?? "");
    for (let i = 0; i < (gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS) as number); i++) {
      const { name, type } = gl.getActiveUniform(program, i)!;
      this.locations.set(name, { location: gl.getUniformLocation(program, name)!, type });
    }
    this.use(samplers);
  }

  use(uniforms: Readonly<Record<string, Value>>): void {
    this.gl.useProgram(this.program);
    this.set(uniforms);
  }

  /** The program must be in use. */
  set(uniforms: Readonly<Record<string, Value>>): void {
    const { gl } = this;
    for (const [name, value] of Object.entries(uniforms)) {
      const found = this.locations.get(name);
      if (!found) continue;
      const { location, type } = found;
      if (type === gl.FLOAT) gl.uniform1f(location, Number(value));
      else if (type === gl.FLOAT_VEC2) gl.uniform2fv(location, value as number[]);
      else if (type === gl.FLOAT_VEC3) gl.uniform3fv(location, value as number[]);
      else if (type === gl.FLOAT_VEC4) gl.uniform4fv(location, value as number[]);
      else gl.uniform1i(location, Number(value)); // samplers and booleans
    }
  }
}
