// The plane that the map shows: where codes lie in it, and which code a place of it is.

import { session, rows } from "./session.js";
import { state } from "./store.js";
import { ramp, classColour, isDark } from "./palette.js";

export function planeChoices() {
  const { info } = session;
  if (info.z_dim <= 2) return [];
  const order = info.dims.order.slice(0, 8);
  const choices = info.plane ? [["pca", "principal components"]] : [];
  if (info.plane && (session.backend.server || session.table.umap)) choices.push(["umap", "UMAP"]);
  for (let i = 0; i < order.length; i++) for (let j = i + 1; j < Math.min(order.length, i + 4); j++) choices.push([`${order[i]},${order[j]}`, `z${order[i]} and z${order[j]}`]);
  return choices;
}

export function planeOf() {
  const { info, table } = session;
  const dim = info.z_dim;
  const n = rows();
  const codes = table.codes || new Float32Array(0);
  const points = new Float32Array(2 * n);
  if (dim === 1) {
    const height = (row) => (((row * 2654435761) % 4294967296) / 4294967296 - 0.5) * 1.6;
    for (let row = 0; row < n; row++) points.set([codes[row], height(row)], 2 * row);
    return { points, names: ["z0", "spread for the eye"], toCode: (x) => Float32Array.of(x), fromCode: (code) => [code[0], 0], prior: null };
  }
  if (umapWanted() && table.umap?.length === 2 * n) return umapPlane(table.umap, codes, dim);
  const chosen = state.plane.split(",").map(Number);
  const pair = dim === 2 ? [0, 1] : chosen.length === 2 && chosen.every((d) => Number.isInteger(d) && d >= 0 && d < dim) ? chosen : null;
  if (!pair && info.plane) {
    const { origin, axes, names } = info.plane;
    const along = (code, at, axis) => origin.reduce((sum, o, d) => sum + (code[at + d] - o) * axis[d], 0);
    for (let row = 0; row < n; row++) for (let c = 0; c < 2; c++) points[2 * row + c] = along(codes, row * dim, axes[c]);
    return {
      points,
      names,
      toCode: (x, y) => Float32Array.from(origin, (o, d) => o + x * axes[0][d] + y * axes[1][d]),
      fromCode: (code) => axes.map((axis) => along(code, 0, axis)),
      prior: info.standard ? axes.map((axis) => along(new Float32Array(dim), 0, axis)) : null,
    };
  }
  const [i, j] = pair || info.dims.order;
  for (let row = 0; row < n; row++) points.set([codes[row * dim + i], codes[row * dim + j]], 2 * row);
  return {
    points,
    names: [`z${i}`, `z${j}`],
    toCode: (x, y) => {
      const code = Float32Array.from(dim === 2 ? new Float32Array(2) : state.code);
      code[i] = x;
      code[j] = y;
      return code;
    },
    fromCode: (code) => [code[i], code[j]],
    prior: info.standard ? [0, 0] : null,
  };
}

export function umapWanted() {
  return state.plane === "umap" && session.info.z_dim > 2;
}

// UMAP has no way back: a place stands for the code of the image nearest to it, and a code for the place of the nearest.
function umapPlane(points, codes, dim) {
  const nearest = (of, width, at) => {
    let [best, found] = [Infinity, 0];
    for (let row = 0; row < points.length / 2; row++) {
      let sum = 0;
      for (let d = 0; d < width && sum < best; d++) sum += (of[row * width + d] - at[d]) ** 2;
      if (sum < best) [best, found] = [sum, row];
    }
    return found;
  };
  const codeAt = (row) => codes.slice(row * dim, (row + 1) * dim);
  return {
    points,
    names: ["UMAP 1", "UMAP 2: a place is the code of the nearest image"],
    toCode: (x, y) => codeAt(nearest(points, 2, [x, y])),
    fromCode: (code) => [...points.slice(2 * nearest(codes, dim, code)).slice(0, 2)],
    prior: null,
  };
}

const MEASURED = { score: "anomaly score", mse: "squared error", elbo: "ELBO, nats", rate: "rate, nats" };

export function colourChoices() {
  const { info, table } = session;
  const choices = table.labels ? [["label", "label"]] : [];
  if (info.factors) info.factors.names.forEach((name, k) => choices.push([`factor:${k}`, name]));
  for (const [key, name] of Object.entries(MEASURED)) if (table[key] && [...table[key].subarray(0, 50)].some(Number.isFinite)) choices.push([key, name]);
  return choices;
}

// What colours the points: classes with names, or a number with its ends.
export function colouring() {
  const { info, table } = session;
  const lifted = isDark() || state.layers.split(",").includes("tiles");
  const choices = colourChoices().map(([key]) => key);
  const key = choices.includes(state.colour) ? state.colour : choices[0];
  if (key === "label" || key?.startsWith("factor:")) {
    const f = key === "label" ? -1 : Number(key.slice(7));
    const count = f < 0 ? info.labels.length : info.factors.sizes[f];
    const width = info.factors ? info.factors.names.length : 1;
    const of = (row) => (f < 0 ? table.labels[row] : table.factors[row * width + f]);
    const names = f < 0 ? info.labels : Array.from({ length: count }, (_, v) => String(v));
    if (f >= 0 && count > 10) return { key, names: null, title: info.factors.names[f], low: 0, high: count - 1, of, colour: (row) => ramp(of(row) / (count - 1)) };
    return { key, names, title: key === "label" ? "label" : info.factors.names[f], of, colour: (row) => (of(row) < 0 ? [128, 128, 128] : classColour(of(row), count, lifted)), swatch: (k) => classColour(k, count, lifted) };
  }
  if (!key) return { key: "", names: null, title: "", of: () => 0, colour: () => classColour(0, 1, lifted) };
  const sorted = Float32Array.from(table[key]).sort();
  const [low, high] = [sorted[Math.floor(sorted.length * 0.01)], sorted[Math.ceil(sorted.length * 0.99) - 1]];
  const of = (row) => table[key][row];
  return { key, names: null, title: MEASURED[key], low, high, of, colour: (row) => ramp((of(row) - low) / (high - low || 1)) };
}
