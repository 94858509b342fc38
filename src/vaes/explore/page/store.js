// What the page shows now: one object, written into the address, so that an address brings every view back.

import { debounce } from "./dom.js";

export const state = {
  view: "map",
  run: 0,
  checkpoint: "", // the step of another than the run's own
  code: null, // Float32Array(D)
  from: "", // what the code is, in words
  row: null, // which encoded image it is the code of
  own: null, // the user's picture it is the code of: { pixels, said }
  pinned: false,
  colour: "label",
  plane: "",
  layers: "tiles,dots,rings",
  camera: null, // [x, y, pixels a unit]
  reach: 3,
  a: null,
  b: null,
  path: "linear",
  from_label: "0",
  to_label: "1",
  strength: 1,
  sort: "worst",
  seed: 0,
  term: "",
  formed: "", // the step whose latent plane is shown, where it is not the newest
};

const listeners = [];

export function on(keys, run) {
  const entry = { keys: new Set(keys), run };
  listeners.push(entry);
  return () => listeners.splice(listeners.indexOf(entry), 1);
}

export function set(changes) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  for (const entry of [...listeners]) if (changed.some((key) => entry.keys.has(key))) entry.run(changed);
  keep();
}

const PLAIN = ["view", "checkpoint", "colour", "plane", "layers", "path", "from_label", "to_label", "sort", "term", "formed"];
const COUNTS = ["run", "reach", "strength", "seed"];
const LISTS = ["code", "a", "b", "camera"];

const keep = debounce(200, () => {
  if (location.protocol !== "about:") history.replaceState(null, "", `#${address()}`); // in a notebook it has none of its own
});

// Seven digits give a float32 back exactly enough for every pixel.
export function address() {
  const said = new URLSearchParams();
  for (const key of [...PLAIN, ...COUNTS]) if (state[key] !== START[key]) said.set(key, String(state[key]));
  for (const key of LISTS) if (state[key]) said.set(key === "code" ? "z" : key, [...state[key]].map((v) => Number(v.toPrecision(8))).join(","));
  if (state.pinned) said.set("pin", "1");
  return said.toString().replaceAll("%2C", ",");
}

export function restore() {
  const said = new URLSearchParams(location.hash.slice(1));
  for (const key of PLAIN) state[key] = said.get(key) ?? START[key];
  for (const key of COUNTS) state[key] = number(said.get(key), START[key]);
  for (const key of LISTS) {
    const text = said.get(key === "code" ? "z" : key);
    const values = text ? text.split(",").map(Number) : [];
    state[key] = values.length && values.every(Number.isFinite) ? Float32Array.from(values) : null;
    if (key === "camera" && state[key] && (values.length !== 3 || values[2] <= 0)) state[key] = null;
  }
  state.pinned = said.get("pin") === "1";
}

function number(text, otherwise) {
  const value = text === null ? NaN : Number(text);
  return Number.isFinite(value) ? value : otherwise;
}

const START = { ...state };
