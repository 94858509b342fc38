// Paths between two pictures, and arithmetic with directions in code space.

import { h, segmented, select, fixed, debounce, empty } from "./dom.js";
import { state, set, on } from "./store.js";
import { session, setCode, decode, codeOfRow, rows, said } from "./session.js";
import { picture, paint } from "./pixels.js";
import { player } from "./film.js";
import { meanOf } from "./groups.js";

const STEPS = 11;
const FRAMES = 31;

export function interpolateView(place) {
  if (!session.backend.live) return void place.append(empty("Paths between pictures need the live decoder: a report without --static has it."));
  const start = () => (rows() ? codeOfRow(Math.floor(Math.random() * rows())) : session.table.prior.slice(0, session.info.z_dim));
  if (!state.a) set({ a: start() });
  if (!state.b) set({ b: start() });
  const film = player("interpolation");
  const strip = h("div", { class: "strip wide" });
  const fault = h("p", { class: "fault", hidden: true });
  const [one, two] = [slot("a", "From"), slot("b", "To")];
  place.append(
    h("section", { class: "interpolate" }, h("h2", {}, "Between two pictures"), segmented("Path", [["linear", "straight"], ["spherical", "spherical"]], state.path, (path) => set({ path })), h("div", { class: "ends" }, one.element, film.element, two.element), strip, fault),
    arithmetic(),
  );
  const draw = debounce(60, async () => {
    try {
      const path = (n) => Array.from({ length: n }, (_, k) => between(state.a, state.b, k / (n - 1), state.path));
      const codes = path(STEPS);
      const pixels = await decode([...codes, ...path(FRAMES)]);
      one.paint(pixels, 0);
      two.paint(pixels, STEPS - 1);
      strip.replaceChildren(...codes.map((code, k) => h("button", { type: "button", class: "cell", "aria-label": `step ${k + 1} of ${STEPS}`, onclick: () => setCode(code, "a step between two pictures", { pinned: true }) }, picture(pixels, session.info.shape, k))));
      film.show(Array.from({ length: FRAMES }, (_, k) => picture(pixels, session.info.shape, STEPS + k)));
      fault.hidden = true;
    } catch (error) {
      fault.textContent = said(error);
      fault.hidden = false;
    }
  });
  const off = on(["a", "b", "path"], draw);
  draw();
  return off;
}

function slot(key, title) {
  const canvas = h("canvas", { class: "picture", role: "img", "aria-label": `${title} picture` });
  const take = (label, code) => h("button", { type: "button", onclick: () => set({ [key]: Float32Array.from(code()) }) }, label);
  const draw = () => {
    const k = Math.floor(Math.random() * session.table.prior.shape[0]);
    return session.table.prior.slice(k * session.info.z_dim, (k + 1) * session.info.z_dim);
  };
  const element = h("div", { class: "slot" }, h("strong", {}, title), canvas, h("div", { class: "buttons" }, take("the picture beside", () => state.code), rows() ? take("a test image", () => codeOfRow(Math.floor(Math.random() * rows()))) : null, take("a random one", draw)));
  return { element, paint: (pixels, at) => paint(canvas, pixels, session.info.shape, at) };
}

// As vaes.functional has them: a spherical path turns evenly while its length changes evenly.
function between(a, b, t, path) {
  const dot = (u, v) => u.reduce((sum, x, d) => sum + x * v[d], 0);
  const [la, lb] = [Math.sqrt(dot(a, a)), Math.sqrt(dot(b, b))];
  const [ua, ub] = [a.map((v) => v / (la || 1)), b.map((v) => v / (lb || 1))];
  const cosine = dot(ua, ub);
  const across = ub.map((v, d) => v - cosine * ua[d]);
  const sine = Math.sqrt(dot(across, across));
  if (path === "linear" || sine < 1e-6 || !la || !lb) return a.map((v, d) => v + t * (b[d] - v));
  const angle = t * Math.atan2(sine, cosine);
  return a.map((_, d) => (la + t * (lb - la)) * (Math.cos(angle) * ua[d] + (Math.sin(angle) * across[d]) / sine));
}

function arithmetic() {
  const groups = [];
  if (session.table.labels && session.info.labels) {
    const lists = session.info.labels.map(() => []);
    for (let row = 0; row < rows(); row++) lists[session.table.labels[row]]?.push(row);
    session.info.labels.slice(0, 200).forEach((name, k) => lists[k].length && groups.push([String(k), name, () => meanOf(lists[k])]));
  }
  session.groups.forEach((group, k) => groups.push([`lasso:${k}`, group.name, () => group.mean]));
  if (groups.length < 2) return h("section", {}, h("h2", {}, "Arithmetic"), empty("A direction needs two groups: labels, or two groups caught with the lasso on the map."));
  const strip = h("div", { class: "strip wide" });
  const out = h("output", {});
  const known = (key) => groups.find(([k]) => k === key) || null;
  const names = groups.map(([key, name]) => [key, name]);
  const STRENGTHS = [-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2];
  let direction = null;
  const draw = debounce(80, async () => {
    const [from, to] = [known(state.from_label) || groups[0], known(state.to_label) || groups[1]];
    const [a, b] = [from[2](), to[2]()];
    direction = a.map((v, d) => b[d] - v);
    const codes = STRENGTHS.map((s) => state.code.map((v, d) => v + s * direction[d]));
    const pixels = await decode(codes).catch(() => null);
    if (!pixels) return;
    strip.replaceChildren(...codes.map((code, k) => h("figure", {}, h("button", { type: "button", class: k === 4 ? "cell own" : "cell", "aria-label": `strength ${STRENGTHS[k]}`, onclick: () => setCode(code, `${fixed(STRENGTHS[k], 1)} × (${to[1]} − ${from[1]}) added`, { pinned: true }) }, picture(pixels, session.info.shape, k)), h("figcaption", {}, k === 4 ? "the code" : `${STRENGTHS[k] > 0 ? "+" : "−"}${Math.abs(STRENGTHS[k])}`))));
    out.textContent = `the direction is ${fixed(Math.hypot(...direction))} long`;
  });
  const section = h("section", { class: "arithmetic" }, h("h2", {}, "Arithmetic", h("small", {}, "the code beside, moved along the mean of one group less the mean of another")), h("div", { class: "toolbar" }, select("from", names, state.from_label, (from_label) => set({ from_label })), select("to", names, known(state.to_label) ? state.to_label : groups[1][0], (to_label) => set({ to_label })), out), strip);
  const off = on(["code", "from_label", "to_label"], () => (section.isConnected ? draw() : off()));
  draw();
  return section;
}
