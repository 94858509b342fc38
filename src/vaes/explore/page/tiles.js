// What the plane decodes to, beneath the codes.

import { h, debounce } from "./dom.js";
import { state } from "./store.js";
import { session, decode } from "./session.js";
import { imageData } from "./pixels.js";
import { layersOf } from "./overlay.js";

export class Tiles {
  constructor(map) {
    this.map = map;
    this.canvas = null;
    this.corners = null;
  }

  // Once the map stands still.
  later = debounce(120, () => this.make());

  async make() {
    const { map } = this;
    if (!layersOf().has("tiles") || !map.camera || map.closed) return;
    if (!session.backend.live) return this.stored();
    const { clientWidth: w, clientHeight: hgt } = map.stage;
    const { shape, z_dim: dim } = session.info;
    const [, high, wide] = shape;
    const side = Math.max(30, Math.min(64, Math.round(Math.max(high, wide))));
    const [across, down] = [Math.ceil(w / side), Math.ceil(hgt / side)];
    const key = [map.camera.x, map.camera.y, map.camera.scale, state.plane, across, down].join();
    if (this.key === key) return;
    this.key = key;
    const canvas = h("canvas", { width: across * wide, height: down * high });
    const pen = canvas.getContext("2d");
    const corners = [map.toPlane(0, 0), map.toPlane(across * side, down * side)];
    for (let row = 0; row < down; row += 4) {
      const codes = [];
      const end = Math.min(row + 4, down);
      for (let r = row; r < end; r++) for (let c = 0; c < across; c++) codes.push(map.plane.toCode(...map.toPlane((c + 0.5) * side, (r + 0.5) * side)));
      const flat = new Float32Array(codes.length * dim);
      codes.forEach((code, i) => flat.set(code, i * dim));
      const pixels = await decode(flat).catch(() => null);
      if (!pixels || this.key !== key || map.closed) return;
      codes.forEach((_, i) => pen.putImageData(imageData(pixels, shape, i), (i % across) * wide, (row + Math.floor(i / across)) * high));
    }
    Object.assign(this, { canvas, corners });
    map.later();
  }

  stored() {
    const { grid } = session.table;
    if (!grid || this.key === "stored") return;
    const { limits, rows: down, columns: across } = session.info.grid;
    const [, high, wide] = session.info.shape;
    const canvas = h("canvas", { width: across * wide, height: down * high });
    const pen = canvas.getContext("2d");
    for (let i = 0; i < across * down; i++) pen.putImageData(imageData(grid, session.info.shape, i), (i % across) * wide, Math.floor(i / across) * high);
    Object.assign(this, { key: "stored", canvas, corners: [[limits[0], limits[3]], [limits[1], limits[2]]] });
    this.map.later();
  }

  draw(pen, layers) {
    const { map } = this;
    if (!layers.has("tiles") || !this.corners) return;
    const [[x0, y0], [x1, y1]] = this.corners;
    const [a, b] = map.toScreen(x0, y0);
    const [c, d] = map.toScreen(x1, y1);
    pen.fillStyle = "#000";
    pen.fillRect(a, b, c - a, d - b);
    // Dimmed, so that codes and originals above stand out.
    pen.globalAlpha = layers.has("dots") || layers.has("thumbs") ? 0.45 : 1;
    pen.drawImage(this.canvas, a, b, c - a, d - b);
    pen.globalAlpha = 1;
  }
}
