// The latent plane as it formed, step by step: codes of validation images, and what the plane decoded to.

import { h, thousands, button, download } from "./dom.js";
import { state, set } from "./store.js";
import { session, said } from "./session.js";
import { overSteps } from "./film.js";
import { gifOf } from "./gif.js";
import { pngOf } from "./pixels.js";
import { token, css, classColour } from "./palette.js";

const KEPT_SIDE = 420; // pixels of a panel in what is kept
const STEP_TIME = 260; // milliseconds from one step to the next
const KEPT_GAP = 16;

// Returns the section and what is to be called when there may be more.
export function formingSection() {
  let steps = session.info.planes;
  const kept = new Map(); // step -> what was kept of it
  const [codes, tiles] = ["codes of validation images", "what the plane decodes to"].map((text) => h("canvas", { class: "picture", role: "img", "aria-label": `the latent plane: ${text}` }));
  const legend = h("p", { class: "legend" });
  const words = h("output", { "data-testid": "forming-step" });
  const figure = (canvas, text) => h("figure", {}, canvas, h("figcaption", {}, text));
  const element = formingPart(
    h("div", { class: "forming", "data-testid": "forming" }, figure(codes, "codes of validation images"), figure(tiles, "what each place decodes to")),
    legend,
  );

  const fetched = async (step) => {
    if (!kept.has(step)) {
      kept.set(step, session.backend.plane(state.run, step).then(keptPlane).catch((error) => ({ fault: said(error) })));
    }
    return kept.get(step);
  };

  // At a place between two steps, from 0 to the number of steps less one.
  const show = async (at) => {
    const [low, high] = [steps[Math.floor(at)], steps[Math.min(Math.ceil(at), steps.length - 1)]];
    const [a, b] = await Promise.all([fetched(low), fetched(high)]);
    if (player.at !== at) return; // something newer is wanted
    words.textContent = `step ${thousands(low)}${a.fault ? `: ${a.fault}` : ""}`;
    words.dataset.step = low;
    if (!a.fault) drawPlane(codes, tiles, a, b.fault ? a : b, at - Math.floor(at));
    if (!a.fault && !legend.childElementCount) legend.replaceChildren(...legendOf(a));
  };
  const player = overSteps("the latent plane", steps.length, show, STEP_TIME, (at) => set({ formed: at === steps.length - 1 ? "" : String(steps[at]) }));
  const keep = button("GIF", "film", async () => {
    const frames = [];
    for (const step of steps) {
      const one = await fetched(step);
      if (!one.fault) frames.push(planeSheet(one, step));
    }
    download("latent-plane.gif", gifOf([...frames, ...Array(8).fill(frames.at(-1))], false, 12));
  });
  const still = button("PNG", "save", async () => {
    const step = steps[Math.floor(player.at)];
    const one = await fetched(step);
    if (!one.fault) download(`latent-plane-${step}.png`, await pngOf(planeSheet(one, step)));
  });
  element.querySelector("h2").after(h("div", { class: "bar" }, ...player.parts, words, keep, still, h("code", {}, "vaes plot RUN --plane")));
  const wanted = steps.indexOf(Number(state.formed || NaN));
  player.go(wanted < 0 ? steps.length - 1 : wanted);
  return [element, () => (player.grow(steps.length), show(player.at))];
}

function formingPart(...children) {
  return h("section", {}, h("h2", {}, "The latent plane forming"), ...children);
}

// What was kept of a step, with its tiles as one picture.
async function keptPlane({ arrays, said: rest }) {
  const sheet = await createImageBitmap(new Blob([arrays.sheet], { type: "image/webp" }));
  return { ...rest, points: arrays.points, labels: arrays.labels || null, sheet };
}

function legendOf({ labels, names }) {
  if (!labels) return [];
  const there = [...new Set(labels)].sort((a, b) => a - b).slice(0, 24);
  return there.map((k) => {
    const dot = h("i", {});
    dot.style.background = css(classColour(k, names.length || there.length));
    return h("span", { class: "chip still" }, dot, names[k] ?? String(k));
  });
}

function drawPlane(codes, tiles, a, b, part, ratio = devicePixelRatio || 1) {
  const size = Math.round((codes.clientWidth || KEPT_SIDE) * ratio);
  for (const canvas of [codes, tiles]) if (canvas.width !== size || canvas.height !== size) Object.assign(canvas, { width: size, height: size });
  const limits = a.limits.map((v, i) => v + (b.limits[i] - v) * part);
  drawCodes(codes.getContext("2d"), size, ratio, limits, a, b, part);
  drawTiles(tiles.getContext("2d"), size, limits, a, b, part);
}

function placerOf([left, right, bottom, top], size) {
  return (x, y) => [((x - left) / (right - left)) * size, ((top - y) / (top - bottom)) * size];
}

function drawCodes(pen, size, ratio, limits, a, b, part) {
  const at = placerOf(limits, size);
  pen.fillStyle = token("--panel");
  pen.fillRect(0, 0, size, size);
  pen.font = `${11 * ratio}px system-ui, sans-serif`;
  pen.textAlign = "center";
  if (a.normal) {
    for (const r of [1, 2, 3]) {
      const [[x, y], [edge]] = [at(0, 0), at(r, 0)];
      pen.beginPath();
      pen.arc(x, y, edge - x, 0, 7);
      pen.strokeStyle = token("--ring");
      pen.setLineDash([3 * ratio, 5 * ratio]);
      pen.stroke();
      pen.fillStyle = token("--muted");
      pen.fillText(`${r}σ`, x, y - (edge - x) + 4 * ratio);
    }
    pen.setLineDash([]);
  }
  const count = a.names.length || 1 + Math.max(0, ...(a.labels || []));
  const radius = Math.max(1.6, Math.min(3, 90 / Math.sqrt(a.points.length / 2))) * ratio;
  pen.globalAlpha = 0.8;
  for (let i = 0; i < a.points.length / 2; i++) {
    const [x, y] = [0, 1].map((c) => a.points[2 * i + c] + ((b.points[2 * i + c] ?? a.points[2 * i + c]) - a.points[2 * i + c]) * part);
    pen.fillStyle = a.labels ? css(classColour(a.labels[i], count)) : token("--accent");
    pen.beginPath();
    pen.arc(...at(x, y), radius, 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
}

function drawTiles(pen, size, limits, a, b, part) {
  const at = placerOf(limits, size);
  pen.fillStyle = token("--line");
  pen.fillRect(0, 0, size, size);
  pen.imageSmoothingEnabled = true;
  for (const [one, alpha] of [[a, 1], [b, part]]) {
    if (!alpha) continue;
    const [left, right, bottom, top] = one.limits;
    const [[x0, y0], [x1, y1]] = [at(left, top), at(right, bottom)];
    pen.globalAlpha = alpha;
    pen.drawImage(one.sheet, x0, y0, x1 - x0, y1 - y0);
  }
  pen.globalAlpha = 1;
}

// Both panels and the step, as a picture of its own.
function planeSheet(one, step) {
  const page = h("canvas", { width: 2 * KEPT_SIDE + 3 * KEPT_GAP, height: KEPT_SIDE + 2 * KEPT_GAP + 24 });
  const pen = page.getContext("2d");
  pen.fillStyle = token("--ground");
  pen.fillRect(0, 0, page.width, page.height);
  const panels = [0, 1].map(() => h("canvas", { width: KEPT_SIDE, height: KEPT_SIDE }));
  drawPlane(...panels, one, one, 0, 1);
  panels.forEach((panel, k) => pen.drawImage(panel, KEPT_GAP + k * (KEPT_SIDE + KEPT_GAP), KEPT_GAP));
  pen.fillStyle = token("--ink");
  pen.font = "600 15px system-ui, sans-serif";
  pen.fillText(`step ${thousands(step)}`, KEPT_GAP, KEPT_SIDE + 2 * KEPT_GAP + 10);
  return page;
}
