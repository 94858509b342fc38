// Runs as lines over axes of settings and numbers, of which windows choose some; the same runs as slices and rows.
const { title, axes, runs } = JSON.parse(document.getElementById("vaes-data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const TOP = 64, HEIGHT = 400, FOOT = 40, SIDE = 84, WIDE = 14;
const shown = new Set(axes.flatMap((axis, i) => (axis.shown ? [i] : [])));
const windows = new Map(); // axis -> [low, high], places in 0..1
const style = getComputedStyle(document.documentElement);
let by = Math.max(0, axes.findIndex((axis) => axis.number && axis.shown));
let lit = null;

function make(tag, attributes = {}, ...children) {
  const found = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...children.filter((child) => child !== null));
  return found;
}

const says = (value) => (value === null ? "none" : typeof value === "number" ? String(+value.toPrecision(4)) : value);
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Where a run is on an axis, from 0 at the foot to 1; null where it has no such number.
function place(axis, value) {
  if (axis.levels) return axis.levels.length < 2 ? 0.5 : axis.levels.indexOf(value) / (axis.levels.length - 1);
  if (value === null) return null;
  const [low, high, at] = axis.log ? [axis.low, axis.high, value].map(Math.log) : [axis.low, axis.high, value];
  return high > low ? (at - low) / (high - low) : 0.5;
}

function ticks(axis) {
  if (axis.levels) return axis.levels.map((level) => [place(axis, level), says(level)]);
  if (axis.low === axis.high) return [[0.5, says(axis.low)]];
  const own = [...new Set(runs.map((run) => run.values[axes.indexOf(axis)]))].filter((value) => value !== null);
  if (own.length <= 8 && !axis.number) return own.map((value) => [place(axis, value), says(value)]);
  return [0, 0.25, 0.5, 0.75, 1].map((t) => {
    const [a, b] = axis.log ? [Math.log(axis.low), Math.log(axis.high)] : [axis.low, axis.high];
    const value = a + t * (b - a);
    return [t, says(axis.log ? Math.exp(value) : value)];
  });
}

// Of a setting, drawn a little apart: runs of one value would hide each other.
function drawn(axis, run) {
  const at = place(axis, run.values[axes.indexOf(axis)]);
  return at === null || axis.number || runs.length < 2 ? at : at + 0.03 * (runs.indexOf(run) / (runs.length - 1) - 0.5);
}

const within = (run) => [...windows].every(([i, [low, high]]) => {
  const at = place(axes[i], run.values[i]);
  return !shown.has(i) || (at !== null && at >= low - 1e-9 && at <= high + 1e-9);
});

function mixed(t) {
  const [a, b] = ["--low", "--high"].map((name) => style.getPropertyValue(name).trim());
  return `color-mix(in oklab, ${b} ${Math.round(100 * t)}%, ${a})`;
}

// 1 is good: the upper end, or the lower where less is better.
function merit(run) {
  const at = place(axes[by], run.values[by]);
  return at === null ? null : axes[by].better === "↓" ? 1 - at : at;
}

function best() {
  const there = runs.filter((run) => within(run) && merit(run) !== null);
  return axes[by].better && there.length ? there.reduce((a, b) => (merit(b) > merit(a) ? b : a)) : null;
}

const named = (axis) => `${axis.name}${axis.better ? ` ${axis.better}` : ""}`;
const told = (run) => `${run.name}\n${[...shown].sort((a, b) => a - b).map((i) => `${axes[i].name}: ${says(run.values[i])}`).join("\n")}`;

function light(run) {
  lit = run;
  for (const one of document.querySelectorAll("[data-run]")) one.classList.toggle("lit", runs[one.dataset.run] === run);
}

function marked(run, tag, attributes, top) {
  const own = { "data-run": runs.indexOf(run), onpointerenter: () => light(run), onpointerleave: () => light(null) };
  const state = within(run) ? (run === top ? " best" : "") : " out";
  return make(tag, { ...attributes, ...own, class: `${attributes.class}${state}` }, make("svg:title", {}, told(run)));
}

function parallel(top) {
  const list = [...shown].sort((a, b) => a - b);
  const width = Math.max(720, 150 * (list.length - 1) + 2 * SIDE);
  const x = (k) => (list.length < 2 ? width / 2 : SIDE + (k * (width - 2 * SIDE)) / (list.length - 1));
  const y = (t) => TOP + (1 - t) * HEIGHT;
  const found = make("svg:svg", { viewBox: `0 0 ${width} ${TOP + HEIGHT + FOOT}`, role: "group", "aria-label": "Parallel coordinates: a line for each run" });
  const order = [...runs].sort((a, b) => within(a) - within(b) || (a === top) - (b === top) || (merit(a) ?? -1) - (merit(b) ?? -1));
  for (const run of order) {
    let path = "", gap = true;
    list.forEach((i, k) => {
      const at = drawn(axes[i], run);
      if (at === null) { gap = true; return; }
      const before = x(k - 1) + (x(k) - x(k - 1)) / 2;
      path += gap ? `M${x(k)} ${y(at)}` : `C${before} ${y(drawn(axes[list[k - 1]], run))} ${before} ${y(at)} ${x(k)} ${y(at)}`;
      gap = false;
    });
    found.append(marked(run, "svg:path", { class: "run", d: path, stroke: mixed(merit(run) ?? 0) }, top));
  }
  list.forEach((i, k) => found.append(axisOf(i, x(k), y, k)));
  return found;
}

function axisOf(i, x, y, k) {
  const axis = axes[i], [low, high] = windows.get(i) ?? [0, 1];
  const words = axis.name.length > 20 && axis.name.includes(".") ? [axis.name.slice(0, axis.name.lastIndexOf(".") + 1), axis.name.slice(axis.name.lastIndexOf(".") + 1)] : ["", axis.name];
  const found = make("svg:g", { role: "group", "aria-label": axis.name },
    make("svg:line", { class: "axis", x1: x, x2: x, y1: y(1), y2: y(0) }),
    make("svg:text", { class: "tick", x, y: TOP - 38, "text-anchor": "middle" }, short(words[0], 22)),
    make("svg:text", { class: "name", x, y: TOP - 23, "text-anchor": "middle" }, short(words[1], 20) + (axis.better ? ` ${axis.better}` : ""), make("svg:title", {}, axis.name)),
    ...ticks(axis).map(([t, text]) => make("svg:text", { class: "tick", x: x + 9, y: y(t) + 4 }, short(text, 16))));
  const grab = make("svg:rect", { class: "grab", x: x - WIDE, width: 2 * WIDE, y: y(1) - 8, height: HEIGHT + 16, "data-axis": i });
  grab.addEventListener("pointerdown", (event) => drag(event, i, null));
  grab.addEventListener("dblclick", () => set(i, null));
  found.append(grab);
  if (windows.has(i)) found.append(make("svg:rect", { class: "window", x: x - 6, width: 12, y: y(high), height: Math.max(2, y(low) - y(high)), rx: 3 }));
  for (const [end, at] of [[0, low], [1, high]]) {
    const handle = make("svg:path", {
      class: `handle${windows.has(i) ? "" : " idle"}`, tabindex: 0, role: "slider", "data-handle": `${i} ${end}`, "aria-orientation": "vertical",
      "aria-label": `${axis.name}, ${end ? "upper" : "lower"} end`, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * at), "aria-valuetext": at_text(axis, at),
      d: end ? `M${x - 7} ${y(at) - 3}h14l-7 -9z` : `M${x - 7} ${y(at) + 3}h14l-7 9z`,
    });
    handle.addEventListener("pointerdown", (event) => drag(event, i, end));
    handle.addEventListener("keydown", (event) => key(event, i, end));
    found.append(handle);
  }
  return found;
}

function at_text(axis, t) {
  if (axis.levels) return says(axis.levels[Math.round(t * (axis.levels.length - 1))]);
  const [a, b] = axis.log ? [Math.log(axis.low), Math.log(axis.high)] : [axis.low, axis.high];
  return says(axis.log ? Math.exp(a + t * (b - a)) : a + t * (b - a));
}

function set(i, range) {
  if (range === null || (range[0] <= 0 && range[1] >= 1)) windows.delete(i);
  else windows.set(i, range.map((t) => Math.min(1, Math.max(0, t))));
  draw();
}

function key(event, i, end) {
  const range = [...(windows.get(i) ?? [0, 1])];
  const step = axes[i].levels ? 1 / Math.max(1, axes[i].levels.length - 1) : 0.05;
  const by = { ArrowUp: step, ArrowRight: step, ArrowDown: -step, ArrowLeft: -step, PageUp: 4 * step, PageDown: -4 * step, Home: -2, End: 2 }[event.key];
  if (event.key === "Escape") set(i, null);
  else if (by === undefined) return;
  else {
    range[end] = end ? Math.min(1, Math.max(range[0], range[1] + by)) : Math.max(0, Math.min(range[1], range[0] + by));
    set(i, range);
  }
  event.preventDefault();
}

function drag(event, i, end) {
  event.preventDefault();
  const svg = event.currentTarget.ownerSVGElement, box = svg.getBoundingClientRect();
  const scale = svg.viewBox.baseVal.height / box.height;
  const at = (e) => Math.min(1, Math.max(0, 1 - ((e.clientY - box.top) * scale - TOP) / HEIGHT));
  const before = windows.get(i) ?? [0, 1];
  const anchor = end === null ? at(event) : before[1 - end];
  const move = (e) => {
    const now = at(e);
    if (end !== null || Math.abs(now - anchor) > 0.01) set(i, [Math.min(anchor, now), Math.max(anchor, now)]);
  };
  const done = () => {
    removeEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) removeEventListener(name, done);
  };
  addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, done);
}

function slice(i, top) {
  const axis = axes[i], value = axes[by], [width, height, left, foot] = [300, 210, 56, 40];
  const x = (t) => left + 10 + t * (width - left - 30), y = (t) => 12 + (1 - t) * (height - foot - 22);
  const found = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${value.name} over ${axis.name}` },
    make("svg:path", { class: "axis", fill: "none", d: `M${left} 6V${height - foot}H${width - 6}` }),
    make("svg:text", { class: "name", x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, short(axis.name, 38)),
    ...[0, 0.5, 1].map((t) => make("svg:text", { class: "tick", x: left - 6, y: y(t) + 4, "text-anchor": "end" }, short(at_text(value, t), 8))));
  const marks = ticks(axis), every = Math.ceil(marks.length / 5);
  marks.forEach(([t, text], k) => k % every || found.append(make("svg:text", { class: "tick", x: x(t), y: height - foot + 15, "text-anchor": "middle" }, short(text, 10))));
  for (const run of [...runs].sort((a, b) => within(a) - within(b) || (a === top) - (b === top))) {
    const [a, b] = [place(axis, run.values[i]), place(value, run.values[by])];
    if (a !== null && b !== null) found.append(marked(run, "svg:circle", { class: "dot", cx: x(a), cy: y(b), r: run === top ? 5.5 : 4.5, fill: mixed(merit(run)) }, top));
  }
  return make("div", { class: "panel" }, found);
}

function rows(top) {
  const list = [...shown].sort((a, b) => a - b);
  const chosen = runs.filter(within).sort((a, b) => (merit(b) ?? -1) - (merit(a) ?? -1));
  const head = make("tr", {}, ...["run", ...list.map((i) => named(axes[i]))].map((text) => make("th", { scope: "col" }, text)));
  const body = chosen.map((run) => make("tr", {
    "data-run": runs.indexOf(run), class: run === top ? "best" : "", onpointerenter: () => light(run), onpointerleave: () => light(null),
  }, make("th", { scope: "row" }, run.name), ...list.map((i) => make("td", {}, says(run.values[i])))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

const count = make("output", { "aria-live": "polite" });
const clear = make("button", { type: "button", onclick: () => { windows.clear(); draw(); } }, "Clear all windows");
const colour = make("select", { onchange: (event) => { by = +event.target.value; draw(); } },
  ...axes.flatMap((axis, i) => (axis.number ? [make("option", { value: i, selected: i === by }, named(axis))] : [])));
const plot = make("div", { class: "panel scroll" }), slices = make("div", { class: "slices" }), table = make("div", { class: "panel scroll", tabindex: 0, role: "region", "aria-label": "Chosen runs" });
plot.style.maxHeight = "none";
const over = make("small");

function choice(number) {
  return make("fieldset", {}, make("legend", {}, number ? "Numbers" : "Settings"), ...axes.flatMap((axis, i) => (axis.number === number
    ? [make("label", {}, make("input", { type: "checkbox", checked: shown.has(i), onchange: (event) => { shown[event.target.checked ? "add" : "delete"](i); draw(); } }), named(axis))] : [])));
}

function draw() {
  const focused = document.activeElement?.dataset?.handle, top = best();
  const chosen = runs.filter(within).length;
  count.textContent = `${chosen} of ${runs.length} runs${top ? `; best ${axes[by].name}: ${top.name} (${says(top.values[by])})` : ""}`;
  clear.disabled = windows.size === 0;
  over.textContent = `${named(axes[by])} over each setting`;
  plot.replaceChildren(parallel(top));
  slices.replaceChildren(...axes.flatMap((axis, i) => (axis.number || !shown.has(i) ? [] : [slice(i, top)])));
  table.replaceChildren(rows(top));
  if (focused) document.querySelector(`[data-handle="${focused}"]`)?.focus();
  if (lit) light(lit);
}

document.body.replaceChildren(
  make("h1", {}, title),
  make("div", { class: "bar" }, count, make("label", {}, "Colour by ", colour), clear),
  make("details", {}, make("summary", {}, "Axes"), choice(false), choice(true)),
  make("main", {}, plot,
    make("p", { class: "hint" }, "Drag along an axis to choose the runs that pass there, or move the triangles at its ends (also with the arrow keys); Escape or a double click lets go. The stronger a line's blue, the better the run; the best of those chosen is orange."),
    make("h2", {}, "Slices", over), slices, make("h2", {}, "Runs ", make("small", {}, "those chosen, the best first")), table));
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
