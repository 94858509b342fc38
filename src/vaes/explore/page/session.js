// The run that is looked at, its codes and what is asked of its decoder.

import { debounce, toast, fixed } from "./dom.js";
import { state, set, on } from "./store.js";

export const session = { backend: null, version: "", runs: [], info: null, table: null, originals: new Map(), groups: [] };

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

// Follow the code: decode the newest, never more than one at a time. Returns what begins it, and what ends it.
export function follow(show, fail) {
  let [busy, ended] = [false, false];
  const step = async () => {
    if (busy || ended || !state.code || !session.info?.z_dim) return;
    busy = true;
    const [code, weights] = [state.code, session.info.sha256];
    const now = () => !ended && session.info?.sha256 === weights && code.length === session.info.z_dim;
    try {
      const pixels = await decode(code);
      if (now()) show(pixels, code);
    } catch (error) {
      if (now()) fail(said(error));
    }
    busy = false;
    if (state.code !== code || session.info?.sha256 !== weights) step();
  };
  const off = on(["code"], step);
  return [step, () => (off(), (ended = true))];
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

// Whether what was asked for is still what is looked at.
export async function openRun(run) {
  // What is shown stays whole until what comes instead is there; both answers are asked for at once.
  const asked = `${run} ${state.checkpoint}`;
  const columns = session.runs[run]?.error ? null : session.backend.columns(run).catch(() => null);
  const info = await session.backend.info(run);
  const table = info.z_dim ? ((await columns) ?? (await session.backend.columns(run))) : null;
  if (asked !== `${state.run} ${state.checkpoint}`) return false;
  Object.assign(session, { info, table, originals: new Map(), groups: [] });
  if (info.z_dim) {
    if (!state.code || state.code.length !== session.info.z_dim) {
      begin();
    } else if (state.row !== null) {
      // The same picture under other weights has another code.
      if (state.row < rows()) setRow(state.row);
      else Object.assign(state, { row: null, from: "the code of an image under other weights" });
    }
    for (const slot of ["a", "b"]) if (state[slot] && state[slot].length !== session.info.z_dim) state[slot] = null;
  }
  return true;
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
      const key = `${run} ${state.checkpoint}`;
      if (run === state.run && last && last.key === key && JSON.stringify(last.now) !== JSON.stringify(now)) await refresh(last.now, now);
      if (now.of === null ? !now.data_error && now.sha256 : now.done < now.of) wait = 700;
      last = { key, now };
      document.body.classList.remove("lost");
    } catch (error) {
      document.body.classList.add("lost");
      document.querySelector(".lost-note")?.replaceChildren(said(error));
    }
    setTimeout(look, wait);
  });
  look();
}
