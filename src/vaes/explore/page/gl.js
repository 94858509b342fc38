// A hundred thousand points in WebGL: positions and colours stay on the card, a frame is one call.

const VERTEX = `
attribute vec2 place; attribute vec4 colour; attribute float shown;
uniform vec2 centre, scale; uniform mediump float size; varying vec4 tint;
void main() {
  gl_Position = vec4((place - centre) * scale, 0.0, 1.0);
  gl_PointSize = size * shown; tint = colour;
  if (shown < 0.01) gl_Position = vec4(2.0, 2.0, 0.0, 1.0);
}`;
const FRAGMENT = `
precision mediump float; varying vec4 tint; uniform float alpha; uniform mediump float size;
void main() {
  float r = length(gl_PointCoord - 0.5) * size;
  float a = alpha * (1.0 - smoothstep(size * 0.5 - 1.0, size * 0.5, r));
  gl_FragColor = vec4(tint.rgb * a, a);
}`;

export class Points {
  constructor(canvas) {
    this.canvas = canvas;
    this.count = 0;
    canvas.addEventListener("webglcontextlost", (e) => e.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => this.begin());
  }

  // At the first drawing: making a context takes a while without a graphics card, and the picture need not wait for it.
  begin() {
    this.gl ??= this.canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true });
    if (!this.gl) return;
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.at = Object.fromEntries(["centre", "scale", "size", "alpha"].map((name) => [name, gl.getUniformLocation(program, name)]));
    this.buffers = {};
    for (const [name, parts, kind, normal] of [["place", 2, gl.FLOAT, false], ["colour", 4, gl.UNSIGNED_BYTE, true], ["shown", 1, gl.FLOAT, false]]) {
      const where = gl.getAttribLocation(program, name);
      this.buffers[name] = { buffer: gl.createBuffer(), where, parts, kind, normal };
    }
    for (const [name, data] of Object.entries(this.given || {})) this.fill(name, data);
  }

  fill(name, data) {
    this.given = { ...this.given, [name]: data };
    if (!this.gl) return;
    const { gl } = this;
    const b = this.buffers[name];
    gl.bindBuffer(gl.ARRAY_BUFFER, b.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(b.where);
    gl.vertexAttribPointer(b.where, b.parts, b.kind, b.normal, 0, 0);
    this.count = this.given.place ? this.given.place.length / 2 : 0;
  }

  draw(camera, size, alpha) {
    if (!this.gl) this.begin();
    const { canvas, gl } = this;
    if (!gl || !this.given?.shown) return;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const ratio = devicePixelRatio || 1;
    gl.uniform2f(this.at.centre, camera.x, camera.y);
    gl.uniform2f(this.at.scale, (2 * camera.scale * ratio) / canvas.width, (2 * camera.scale * ratio) / canvas.height);
    gl.uniform1f(this.at.size, size * ratio);
    gl.uniform1f(this.at.alpha, alpha);
    gl.drawArrays(gl.POINTS, 0, this.count);
  }
}
