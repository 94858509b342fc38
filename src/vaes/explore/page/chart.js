// Curves over steps on a canvas, with the values under the pointer.

import { h, amount, thousands } from "./dom.js";
import { token } from "./palette.js";

const ROOM = { left: 62, right: 14, top: 10, bottom: 26 };

// Lines: [{ name, step, value, dash }].
export function chart(title, lines) {
  const canvas = h("canvas", { class: "chart", role: "img", "aria-label": `${title} over steps: ${lines.map((line) => `${line.name} ends at ${amount(line.value.at(-1))}`).join(", ")}` });
  const words = h("p", { class: "numbers", "aria-hidden": "true" });
  const element = h("figure", { class: "chart-of" }, h("figcaption", {}, title), canvas, words);
  let at = null;
  const draw = () => {
    const { clientWidth: w, clientHeight: hgt } = canvas;
    if (!w) return;
    const ratio = devicePixelRatio || 1;
    Object.assign(canvas, { width: w * ratio, height: hgt * ratio });
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const [steps, values] = [lines.flatMap((l) => l.step), lines.flatMap((l) => l.value).filter(Number.isFinite)];
    const [s0, s1] = [Math.min(...steps), Math.max(...steps)];
    // The first steps of a training would flatten all that follows.
    const sorted = Float64Array.from(values).sort();
    const cut = (share) => sorted[Math.round(share * (sorted.length - 1))];
    let [low, high] = sorted.length > 12 ? [cut(0.03), cut(0.97)] : [sorted[0], sorted.at(-1)];
    const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
    [low, high] = [low - room, high + room];
    const x = (s) => ROOM.left + ((s - s0) / (s1 - s0 || 1)) * (w - ROOM.left - ROOM.right);
    const y = (v) => hgt - ROOM.bottom - ((v - low) / (high - low)) * (hgt - ROOM.top - ROOM.bottom);
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = token("--muted");
    pen.strokeStyle = token("--line");
    pen.textAlign = "right";
    for (const v of ticks(low, high, 4)) {
      pen.beginPath();
      pen.moveTo(ROOM.left, Math.round(y(v)) + 0.5);
      pen.lineTo(w - ROOM.right, Math.round(y(v)) + 0.5);
      pen.stroke();
      pen.fillText(amount(v), ROOM.left - 8, y(v) + 4);
    }
    pen.textAlign = "center";
    for (const s of ticks(s0, s1, 5)) pen.fillText(thousands(s), Math.min(x(s), w - 22), hgt - 8);
    pen.save();
    pen.beginPath();
    pen.rect(ROOM.left, ROOM.top - 4, w - ROOM.left - ROOM.right + 4, hgt - ROOM.top - ROOM.bottom + 8);
    pen.clip();
    for (const line of lines) {
      pen.strokeStyle = token(line.colour);
      pen.lineWidth = 2;
      pen.lineJoin = "round";
      pen.setLineDash(line.dash || []);
      pen.beginPath();
      let down = false;
      line.step.forEach((s, i) => {
        const v = line.value[i];
        if (!Number.isFinite(v)) return void (down = false);
        pen[down ? "lineTo" : "moveTo"](x(s), y(v));
        down = true;
      });
      pen.stroke();
    }
    pen.restore();
    pen.setLineDash([]);
    const s = at === null ? s1 : s0 + ((at - ROOM.left) / (w - ROOM.left - ROOM.right || 1)) * (s1 - s0);
    const found = lines.map((line) => nearestOf(line, s));
    if (at !== null) {
      pen.strokeStyle = token("--muted");
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(at, ROOM.top);
      pen.lineTo(at, hgt - ROOM.bottom);
      pen.stroke();
      lines.forEach((line, k) => {
        if (!Number.isFinite(found[k]?.value)) return;
        pen.fillStyle = token(line.colour);
        pen.beginPath();
        pen.arc(x(found[k].step), y(found[k].value), 3.5, 0, 7);
        pen.fill();
      });
    }
    words.replaceChildren(...lines.flatMap((line, k) => [h("span", { class: `key ${line.name}` }, line.name), ` ${amount(found[k]?.value)} at ${thousands(found[k]?.step ?? 0)}  `]));
  };
  canvas.addEventListener("pointermove", (e) => ((at = e.clientX - canvas.getBoundingClientRect().left), draw()));
  canvas.addEventListener("pointerleave", () => ((at = null), draw()));
  new ResizeObserver(draw).observe(canvas);
  return element;
}

function nearestOf(line, s) {
  let best = null;
  line.step.forEach((step, i) => {
    if (line.value[i] !== null && (best === null || Math.abs(step - s) < Math.abs(best.step - s))) best = { step, value: line.value[i] };
  });
  return best;
}

function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * size).find((v) => v >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(Number(v.toPrecision(12)));
  return found;
}
