// The run that is looked at, its codes and what is asked of its decoder.

import { debounce, toast, fixed } from "./dom.js";
import { state, set, on } from "./store.js";

export const session = { backend: null, version: "", runs: [], info: null, table: null, originals: new Map(), groups: [] };

const waiting = { busy: false, next: null };

export function sizeOf(info = session.info) {
  return info.shape.reduce((a, b) => a * b, 1);
}

export function rows() {
  return session.table?.codes ? session.table.codes.shape[0] : 0;
}

export function codeOfRow(row) {
  const dim = session.info.z_dim;
  return session.table.codes.slice(row * dim, (row + 1) * dim);
}

export function said(error) {
  return error instanceof Error ? error.message : String(error);
}

// Codes as one array, or an array of codes -> pixels of all.
export async function decode(codes, run = state.run) {
  const flat = Array.isArray(codes) ? joined(codes) : codes;
  const dim = session.info.z_dim;
  const most = 1024 * dim;
  if (flat.length <= most) return session.backend.decode(run, flat);
  const parts = [];
  for (let at = 0; at < flat.length; at += most) parts.push(await session.backend.decode(run, flat.slice(at, at + most)));
  const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((n, part) => (all.set(part, n), n + part.length), 0);
  return all;
}

export function joined(codes) {
  const flat = new Float32Array(codes.reduce((n, code) => n + code.length, 0));
  codes.reduce((n, code) => (flat.set(code, n), n + code.length), 0);
  return flat;
}

export function setCode(code, from, extra = {}) {
  set({ code: Float32Array.from(code), from, row: null, own: null, ...extra });
}

export function setRow(row) {
  const name = labelOf(row);
  setCode(codeOfRow(row), `test image ${session.table.index[row]}${name === "" ? "" : `, “${name}”`}`, { row });
}

export function labelOf(row) {
  const { labels } = session.table;
  if (!labels || !session.info.labels || labels[row] < 0) return "";
  return session.info.labels[labels[row]] ?? String(labels[row]);
}

// Follow the code: decode the newest, never more than one at a time.
export function follow(show, fail) {
  const step = async () => {
    if (waiting.busy || !state.code || !session.info?.z_dim) return;
    waiting.busy = true;
    const code = state.code;
    try {
      const pixels = await decode(code);
      if (code.length === session.info.z_dim) show(pixels, code);
    } catch (error) {
      fail(said(error));
    }
    waiting.busy = false;
    if (state.code !== code) step();
  };
  on(["code"], step);
  return step;
}

export async function originals(wanted) {
  const size = sizeOf();
  const run = state.run;
  const missing = [...new Set(wanted.filter((row) => !session.originals.has(row)))];
  for (let i = 0; i < missing.length; i += 512) {
    const part = missing.slice(i, i + 512);
    const pixels = await session.backend.images(run, part.map((row) => session.table.index[row]));
    if (run !== state.run) return new Map();
    part.forEach((row, k) => session.originals.set(row, pixels.subarray(k * size, (k + 1) * size)));
  }
  if (session.originals.size > 20000) for (const key of [...session.originals.keys()].slice(0, 5000)) session.originals.delete(key);
  return session.originals;
}

export function nearestRows(code, count) {
  const { codes } = session.table;
  const dim = session.info.z_dim;
  const n = rows();
  const best = [];
  for (let row = 0; row < n; row++) {
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += (codes[row * dim + d] - code[d]) ** 2;
    if (best.length < count || sum < best[best.length - 1][0]) {
      let at = best.length;
      while (at > 0 && best[at - 1][0] > sum) at--;
      best.splice(at, 0, [sum, row]);
      if (best.length > count) best.pop();
    }
  }
  return best.map(([sum, row]) => ({ row, distance: Math.sqrt(sum) }));
}

export function randomPrior() {
  const dim = session.info.z_dim;
  const k = Math.floor(Math.random() * session.table.prior.shape[0]);
  setCode(session.table.prior.slice(k * dim, (k + 1) * dim), `draw ${k} from the prior (seed 0)`);
}

export function centreCode() {
  const { info, table } = session;
  if (info.support === "real vectors") return new Float32Array(info.z_dim);
  return table.prior.slice(0, info.z_dim);
}

export async function takePicture(blob) {
  try {
    const found = await session.backend.encode(state.run, blob);
    session.ownBlob = blob;
    setCode(found.code, "your picture", { own: found });
  } catch (error) {
    toast(said(error));
  }
}

export function inWords(code) {
  const shown = [...code].slice(0, 8).map((v) => fixed(v)).join(", ");
  return `z = (${shown}${code.length > 8 ? ", …" : ""})`;
}

export async function openRun(run, again) {
  session.info = session.table = null;
  session.originals = new Map();
  session.groups = [];
  const asked = session.runs[run]?.error ? null : session.backend.columns(run).catch(() => null);
  session.info = await session.backend.info(run);
  if (session.info.z_dim) {
    session.table = (await asked) ?? (await session.backend.columns(run));
    if (!state.code || state.code.length !== session.info.z_dim) {
      begin();
    }
    for (const slot of ["a", "b"]) if (state[slot] && state[slot].length !== session.info.z_dim) state[slot] = null;
  }
  again();
}

// A test image is a better beginning than the centre of the prior, which is of no image.
function begin() {
  Object.assign(state, { code: centreCode(), from: "the centre of the prior", row: null, own: null, pinned: false });
  if (rows()) setRow(0);
}

// While codes are still being made, or the run is training, look again.
export function watch(refresh) {
  let last = null;
  const look = debounce(0, async () => {
    const run = state.run;
    let wait = 4000;
    try {
      const now = await session.backend.progress(run);
      if (now === null) return;
      if (run === state.run && last && last.run === run && JSON.stringify(last.now) !== JSON.stringify(now)) await refresh(last.now, now);
      if (now.of === null ? !now.data_error && now.sha256 : now.done < now.of) wait = 700;
      last = { run, now };
      document.body.classList.remove("lost");
    } catch (error) {
      document.body.classList.add("lost");
      document.querySelector(".lost-note")?.replaceChildren(said(error));
    }
    setTimeout(look, wait);
  });
  look();
}
