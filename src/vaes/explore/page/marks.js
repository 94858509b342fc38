// What follows the pointer, over the map: where the code is, the code under the pointer, the lasso. Small canvases that
// are moved, so that a frame draws nothing of the map anew.

import { h } from "./dom.js";
import { state } from "./store.js";
import { token, isDark } from "./palette.js";

const MARK = 36;

export class Marks {
  constructor(map) {
    this.map = map;
    this.elements = ["lasso", "near", "here"].map((name) => h("canvas", { class: `mark ${name}`, "aria-hidden": "true", hidden: true }));
  }

  place() {
    const { map } = this;
    if (!map.camera || map.closed) return;
    const [lasso, near, here] = this.elements;
    const look = [isDark(), state.pinned, devicePixelRatio].join();
    if (this.look !== look) {
      this.look = look;
      paintHere(small(here));
      ring(small(near), 0, 0, 8);
    }
    const known = map.near !== null && map.near !== undefined;
    put(near, known && map.toScreen(map.plane.points[2 * map.near], map.plane.points[2 * map.near + 1]));
    put(here, state.code && map.toScreen(...map.plane.fromCode(state.code)));
    lasso.hidden = map.drag?.tool !== "lasso";
    if (!lasso.hidden) drawLasso(map.drag.path, lasso, map.stage);
  }
}

function put(canvas, at) {
  canvas.hidden = !at;
  if (at) canvas.style.transform = `translate(${at[0] - MARK / 2}px, ${at[1] - MARK / 2}px)`;
}

function small(canvas) {
  const ratio = devicePixelRatio || 1;
  Object.assign(canvas, { width: MARK * ratio, height: MARK * ratio });
  Object.assign(canvas.style, { width: `${MARK}px`, height: `${MARK}px` });
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, (MARK * ratio) / 2, (MARK * ratio) / 2);
  return pen;
}

function halo(pen, width, draw) {
  pen.lineWidth = width + 2.5;
  pen.strokeStyle = isDark() ? "rgb(0 0 0 / 0.65)" : "rgb(255 255 255 / 0.75)";
  draw();
  pen.lineWidth = width;
  pen.strokeStyle = token("--ink");
  draw();
}

function ring(pen, x, y, radius) {
  halo(pen, 1.5, () => {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.stroke();
  });
}

function paintHere(pen) {
  halo(pen, 1.6, () => {
    pen.beginPath();
    pen.arc(0, 0, state.pinned ? 6 : 9, 0, 7);
    for (const [u, v] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      pen.moveTo(5 * u, 5 * v);
      pen.lineTo(14 * u, 14 * v);
    }
    pen.stroke();
  });
  if (!state.pinned) return;
  pen.fillStyle = token("--accent");
  pen.beginPath();
  pen.arc(0, 0, 4.5, 0, 7);
  pen.fill();
}

function drawLasso(path, canvas, { clientWidth: w, clientHeight: hgt }) {
  const ratio = devicePixelRatio || 1;
  Object.assign(canvas, { width: w * ratio, height: hgt * ratio });
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.beginPath();
  path.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
  pen.fillStyle = token("--accent");
  pen.globalAlpha = 0.12;
  pen.fill();
  pen.globalAlpha = 1;
  halo(pen, 1.4, () => pen.stroke());
}
