// What lies over the points and moves with them: originals, rings of the prior, lines of q(z).

import { state } from "./store.js";
import { session, originals, said } from "./session.js";
import { token, css } from "./palette.js";
import { imageData } from "./pixels.js";
import { h } from "./dom.js";

// Pixels that are drawn beyond each edge of the map, as .world of style.css places it.
export const PAD = 160;

export function layersOf() {
  return new Set(state.layers.split(","));
}

export function drawOverlay(map, pen, layers) {
  if (layers.has("thumbs")) drawThumbs(map, pen);
  if (layers.has("rings") && map.plane.prior) drawRings(map, pen);
  if (layers.has("lines") && map.lines) drawLines(map, pen);
}

function drawRings(map, pen) {
  const [x, y] = map.toScreen(...map.plane.prior);
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "center";
  for (const r of [1, 2, 3]) {
    const radius = r * map.camera.scale;
    pen.setLineDash([3, 5]);
    pen.lineWidth = 1.2;
    pen.strokeStyle = token("--ring");
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.stroke();
    pen.setLineDash([]);
    pen.lineWidth = 3;
    pen.strokeStyle = token("--panel");
    pen.strokeText(`${r}σ`, x, y - radius + 4);
    pen.fillStyle = token("--muted");
    pen.fillText(`${r}σ`, x, y - radius + 4);
  }
}

function drawLines(map, pen) {
  map.lines.forEach((pieces, k) => {
    pen.lineWidth = 2.1 - 0.35 * k;
    pen.strokeStyle = token("--accent");
    pen.globalAlpha = 0.95 - 0.17 * k;
    pen.beginPath();
    for (const [a, b, c, d] of pieces) {
      pen.moveTo(...map.toScreen(a, b));
      pen.lineTo(...map.toScreen(c, d));
    }
    pen.stroke();
  });
  pen.globalAlpha = 1;
}

const stamps = new Map();
let stampsOf = null;

// One original to a cell of the screen, so that none hides another.
function drawThumbs(map, pen) {
  if (stampsOf !== session.originals) {
    stamps.clear();
    stampsOf = session.originals;
  }
  const [, high, wide] = session.info.shape;
  const side = Math.max(24, Math.min(64, 0.9 * Math.max(high, wide)));
  const { clientWidth: w, clientHeight: hgt } = map.stage;
  const taken = new Set();
  const wanted = [];
  const { points } = map.plane;
  for (let row = 0; row < points.length / 2; row++) {
    const [x, y] = map.toScreen(points[2 * row], points[2 * row + 1]);
    if (x < -PAD || y < -PAD || x > w + PAD || y > hgt + PAD) continue;
    if (map.alone !== null && map.colours.of(row) !== map.alone) continue;
    const cell = `${Math.floor(x / side)},${Math.floor(y / side)}`;
    if (taken.has(cell)) continue;
    taken.add(cell);
    wanted.push([row, (Math.floor(x / side) + 0.5) * side, (Math.floor(y / side) + 0.5) * side]);
  }
  const missing = [];
  for (const [row, x, y] of wanted) {
    const stamp = stampOf(row);
    if (!stamp) {
      missing.push(row);
      continue;
    }
    const s = side - 3;
    pen.fillStyle = css(map.colours.colour(row));
    pen.fillRect(x - s / 2 - 1.5, y - s / 2 - 1.5, s + 3, s + 3);
    pen.drawImage(stamp, x - s / 2, y - s / 2, s, s);
  }
  if (missing.length && !map.fetching) {
    map.fetching = true;
    originals(missing)
      .then(() => map.later())
      .catch((error) => (map.note.textContent = said(error)))
      .finally(() => (map.fetching = false));
  }
}

function stampOf(row) {
  if (!stamps.has(row) && session.originals.has(row)) {
    const data = imageData(session.originals.get(row), session.info.shape);
    const canvas = h("canvas", { width: data.width, height: data.height });
    canvas.getContext("2d").putImageData(data, 0, 0);
    stamps.set(row, canvas);
  }
  return stamps.get(row);
}
