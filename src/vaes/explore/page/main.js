// The page: its head, its views, and what changes them.

import { h, button, icon, toast, download, empty, thousands } from "./dom.js";
import { state, set, on, restore, address } from "./store.js";
import { session, openRun, watch, said, randomPrior, setRow, rows } from "./session.js";
import { connect } from "./backend.js";
import { sidePanel, takeDrops } from "./side.js";
import { mapView } from "./map.js";
import { traverseView } from "./traverse.js";
import { interpolateView } from "./interpolate.js";
import { reconstructView } from "./reconstruct.js";
import { trainingView } from "./training.js";
import { numbersView } from "./numbers.js";
import { compareView } from "./compare.js";
import { pythonDialog } from "./python.js";
import { enlarged, pngOf } from "./pixels.js";
import { isDark } from "./palette.js";

const VIEWS = {
  map: ["Map", mapView, true],
  traverse: ["Traversals", traverseView, true],
  interpolate: ["Interpolate", interpolateView, true],
  reconstruct: ["Reconstructions", reconstructView, true],
  training: ["Training", trainingView, false],
  numbers: ["Numbers", numbersView, false],
  compare: ["Compare", compareView, false],
};
const NEEDS_MODEL = new Set(["map", "traverse", "interpolate", "reconstruct"]);

let leave = null;
let leaveSide = null;

function viewsNow() {
  return Object.entries(VIEWS).filter(([key]) => (key === "compare" ? session.runs.length > 1 : session.info?.z_dim || !NEEDS_MODEL.has(key)));
}

function themeToggle() {
  return button("Dark or light", "half", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("vaes-theme", document.documentElement.dataset.theme);
    } catch {
      /* a page from a file may not be allowed to remember */
    }
    set({ theme: document.documentElement.dataset.theme });
  }, { bare: true });
}

function head() {
  const { info } = session;
  const many = session.runs.length > 1;
  const name = many ? h("select", { "aria-label": "run", onchange: (e) => set({ run: Number(e.target.value), checkpoint: "" }) }, session.runs.map((run, i) => h("option", { value: i, selected: i === state.run }, run.name))) : h("strong", { class: "run" }, info.name);
  const facts = info.z_dim ? [`${info.method} on ${info.data}`, `${info.z_dim} dimension${info.z_dim > 1 ? "s" : ""}`, info.which] : [];
  return h(
    "header",
    {},
    h("div", { class: "title" }, h("span", { class: "brand", "aria-hidden": "true" }, "vaes"), name, h("span", { class: "facts" }, facts.join(" · ")), checkpointChoice()),
    h("div", { class: "tools" }, info.z_dim ? [button("PNG of the picture", "save", async () => session.shown && download("decoded.png", await pngOf(enlarged(document.querySelector("[data-testid=decoded]")))), { bare: true }), button("Python lines", "code", pythonDialog, { bare: true })] : null, button("Copy the address of this view", "link", () => copyAddress(), { bare: true }), themeToggle()),
    h("nav", { "aria-label": "views" }, viewsNow().map(([key, [title]]) => h("button", { type: "button", "aria-current": key === state.view ? "page" : false, onclick: () => set({ view: key }) }, title))),
  );
}

// The run's own is what vaes.load takes: the best by validation loss, else the last.
function checkpointChoice() {
  const steps = session.info.checkpoints || [];
  if (!session.backend.server || (steps.length < 2 && !state.checkpoint)) return null;
  const shown = [...new Set([...steps.map(String), ...(state.checkpoint ? [state.checkpoint] : [])])];
  const option = (value, text) => h("option", { value, selected: value === state.checkpoint }, text);
  return h("select", { "aria-label": "checkpoint", "data-testid": "checkpoint", onchange: (e) => set({ checkpoint: e.target.value }) }, option("", "the run’s own checkpoint"), shown.map((step) => option(step, `step ${thousands(Number(step))}`)));
}

function copyAddress() {
  const text = `${location.href.split("#")[0]}#${address()}`;
  navigator.clipboard?.writeText(text).then(() => toast("the address of this view is copied"), () => toast(text));
}

function render() {
  if (!viewsNow().some(([key]) => key === state.view)) state.view = session.info.z_dim ? "map" : "training";
  leave?.();
  leaveSide?.();
  leave = leaveSide = null;
  const [, view, beside] = VIEWS[state.view];
  const place = h("main", { id: "view", class: state.view });
  const side = beside ? h("aside", { "aria-label": "the picture and its code" }) : null;
  const fault = session.info.error ? h("p", { class: "banner fault", role: "alert" }, session.info.error) : null;
  document.body.className = beside ? "with-side" : "";
  document.body.replaceChildren(head(), h("p", { class: "banner fault lost-note", role: "alert" }), ...[fault].filter(Boolean), h("div", { class: "page" }, side || [], place));
  if (side) leaveSide = sidePanel(side); // asks for the picture, which comes while the view is made
  leave = view(place);
}

async function open() {
  let current = false;
  try {
    current = await openRun(state.run);
  } catch (error) {
    if (state.checkpoint) {
      toast(said(error));
      state.checkpoint = "";
      return open();
    }
    document.body.replaceChildren(h("p", { class: "banner fault", role: "alert" }, said(error)));
  }
  if (current) render();
}

// More codes, a longer log or newer weights.
async function refresh(before, now) {
  const info = await session.backend.info(state.run);
  const swapped = before.sha256 !== now.sha256;
  const grown = swapped || before.done !== now.done || Boolean(before.data_error) !== Boolean(now.data_error);
  if (swapped || !session.info.z_dim !== !info.z_dim) return open();
  session.info = info;
  if (grown && info.z_dim) {
    session.table = await session.backend.columns(state.run);
    if (before.done === 0) return render();
    set({ table: now.done });
  }
  set({ curves: now.lines });
  if (now.newest !== before.newest) {
    document.querySelector("header")?.replaceWith(head());
    if (!state.checkpoint && info.step !== now.newest) offerNewer();
  }
}

async function offerNewer() {
  const found = await session.backend.reload(state.run);
  if (found.error) toast(found.error);
}

async function boot() {
  try {
    const kept = localStorage.getItem("vaes-theme");
    if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  } catch {
    /* a page from a file may not be allowed to remember */
  }
  restore();
  try {
    session.backend = await connect();
    const found = await session.backend.runs();
    Object.assign(session, { runs: found.runs, version: found.version });
  } catch (error) {
    document.body.replaceChildren(h("p", { class: "banner fault", role: "alert" }, said(error)));
    return;
  }
  if (!(state.run >= 0 && state.run < session.runs.length)) state.run = 0;
  await open();
  takeDrops();
  on(["view"], render);
  on(["run", "checkpoint"], open);
  addEventListener("hashchange", () => {
    if (location.hash.slice(1) === address()) return;
    restore();
    open();
  });
  addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || /INPUT|SELECT|TEXTAREA/.test(e.target.tagName) || !session.info?.z_dim) return;
    if (e.key === "r") randomPrior();
    else if (e.key === "t" && rows()) setRow(Math.floor(Math.random() * rows()));
    else if (/^[1-7]$/.test(e.key)) set({ view: viewsNow()[Number(e.key) - 1]?.[0] ?? state.view });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => set({ theme: isDark() }));
  if (session.backend.server) watch(refresh);
}

boot();
