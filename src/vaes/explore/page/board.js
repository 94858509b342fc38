// A board to draw a picture on, which is encoded while one draws.

import { h, button, debounce, checkbox } from "./dom.js";
import { session, takePicture, originals, rows } from "./session.js";
import { set } from "./store.js";

const SIDE_OF_BOARD = 280;

export async function drawingBoard() {
  const [channels, high, wide] = session.info.shape;
  const width = Math.round((SIDE_OF_BOARD * wide) / high);
  const canvas = h("canvas", { width, height: SIDE_OF_BOARD, class: "board", "data-testid": "board", "aria-label": "draw here with the pointer" });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let dark = await isDarkGround();
  const colour = h("input", { type: "color", value: dark ? "#ffffff" : "#000000", "aria-label": "colour" });
  const size = h("input", { type: "range", min: 4, max: 48, value: Math.round((SIDE_OF_BOARD / Math.max(high, 28)) * 2.2), "aria-label": "width of the pen" });
  const clear = () => {
    pen.fillStyle = dark ? "#000" : "#fff";
    pen.fillRect(0, 0, width, SIDE_OF_BOARD);
  };
  clear();
  const send = debounce(60, () => canvas.toBlob((blob) => (set({ pinned: true }), takePicture(blob)), "image/png"));
  let last = null;
  const at = (e) => {
    const box = canvas.getBoundingClientRect();
    return [((e.clientX - box.left) / box.width) * width, ((e.clientY - box.top) / box.height) * SIDE_OF_BOARD];
  };
  const draw = (e) => {
    if (!last) return;
    const now = at(e);
    Object.assign(pen, { lineWidth: Number(size.value), lineCap: "round", lineJoin: "round", strokeStyle: channels === 1 ? (dark ? "#fff" : "#000") : colour.value });
    pen.beginPath();
    pen.moveTo(...last);
    pen.lineTo(...now);
    pen.stroke();
    last = now;
    send();
  };
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    last = at(e);
    draw(e);
  });
  canvas.addEventListener("pointermove", draw);
  canvas.addEventListener("pointerup", () => (last = null));
  const dialog = h(
    "dialog",
    { class: "drawing", "aria-label": "Draw a picture" },
    h("div", { class: "bar" }, h("strong", {}, "Draw"), button("Close", "close", () => dialog.close(), { bare: true })),
    canvas,
    h("div", { class: "bar" }, h("label", { class: "select" }, h("span", {}, "pen"), size), channels === 3 ? colour : null, checkbox("dark ground", dark, (value) => ((dark = value), clear(), send())), h("button", { type: "button", onclick: () => (clear(), send()) }, "Clear")),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.show();
}

async function isDarkGround() {
  if (!rows()) return true;
  const some = Array.from({ length: Math.min(16, rows()) }, (_, i) => i);
  const kept = await originals(some).catch(() => new Map());
  const all = some.map((row) => kept.get(row)).filter(Boolean);
  if (!all.length) return true;
  const mean = (pixels) => pixels.reduce((a, b) => a + b, 0) / pixels.length;
  return all.reduce((sum, pixels) => sum + mean(pixels), 0) / all.length < 128;
}
