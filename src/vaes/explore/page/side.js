// Beside most views: the picture of the code, where the code comes from, and a slider for each dimension.

import { h, fill, button, icon, fixed, thousands, debounce } from "./dom.js";
import { state, set, on } from "./store.js";
import { session, setCode, setRow, randomPrior, centreCode, follow, rows, originals, nearestRows, labelOf, takePicture, inWords } from "./session.js";
import { picture, paint, errorPicture } from "./pixels.js";
import { drawingBoard } from "./board.js";

export function sidePanel(place) {
  const offs = [];
  const decoded = h("canvas", { class: "picture big", "data-testid": "decoded", role: "img", "aria-label": "the decoded picture" });
  decoded.getContext("2d", { willReadFrequently: true });
  const words = h("p", { class: "from", "aria-live": "polite" });
  const place2 = h("p", { class: "numbers" });
  const beside = h("div", { class: "beside" });
  const near = h("div", { class: "near" });
  const fault = h("p", { class: "fault", hidden: true });
  const pin = button("Pin", "pin", () => set({ pinned: !state.pinned }), { bare: true });

  place.replaceChildren(
    h("div", { class: "decoded" }, h("div", { class: "frame" }, decoded, beside), h("div", { class: "said" }, h("div", { class: "bar" }, words, pin), place2, fault)),
    sources(),
    h("div", { class: "sliders" }),
    near,
  );
  const panel = sliders(place.querySelector(".sliders"));
  // What costs much waits until the pointer is let go.
  const around = debounce(350, () => (session.dragging ? around() : neighbours(near, decoded)));

  const tell = () => {
    words.textContent = state.from || "a code of the address";
    place2.textContent = state.code ? inWords(state.code) : "";
    pin.setAttribute("aria-pressed", String(state.pinned));
    panel.show();
  };
  const show = (pixels, code) => {
    paint(decoded, pixels, session.info.shape);
    decoded.dataset.code = JSON.stringify([...code]);
    decoded.setAttribute("aria-label", `the picture decoded from ${inWords(code)}`);
    session.shown = { pixels, code };
    fault.hidden = true;
    showBeside(beside, pixels);
    around();
  };
  const [step, end] = follow(show, (text) => {
    fault.textContent = text;
    fault.hidden = false;
  });
  offs.push(end, on(["code", "from", "pinned"], tell));
  tell();
  step();
  return () => offs.forEach((off) => off());
}

// The picture that the code is of, and what is missed.
async function showBeside(place, pixels) {
  const { row, own } = state;
  const { shape } = session.info;
  if (row === null && !own) return place.replaceChildren();
  const original = own ? own.pixels : (await originals([row])).get(row);
  if (!original || row !== state.row || own !== state.own) return;
  place.replaceChildren(
    h("figure", {}, picture(original, shape), h("figcaption", {}, own ? "yours" : "original")),
    h("figure", {}, errorPicture(original, pixels, shape), h("figcaption", {}, "missed")),
  );
}

function sources() {
  const file = h("input", { type: "file", accept: "image/*", class: "hidden-file", onchange: (e) => e.target.files[0] && takePicture(e.target.files[0]) });
  const drop = h("label", { class: "drop", "data-testid": "drop", tabindex: "0" }, icon("drop"), h("span", {}, "Drop, paste or choose a picture of your own"), file);
  drop.addEventListener("keydown", (e) => (e.key === "Enter" || e.key === " ") && file.click());
  const own = session.backend.encodes
    ? [drop]
    : [h("p", { class: "note", "data-testid": "drop" }, session.backend.server ? "" : "Pictures of your own need the encoder, which this file does not hold; vaes explore takes them.")];
  return h(
    "div",
    { class: "sources" },
    h(
      "div",
      { class: "buttons" },
      button("Random", "dice", randomPrior, { title: "A draw from the prior" }),
      rows() ? button("Test image", "image", () => setRow(Math.floor(Math.random() * rows()))) : null,
      session.backend.encodes ? button("Draw", "pen", () => drawingBoard()) : null,
      button("Reset", "centre", () => setCode(centreCode(), "the centre of the prior"), { title: "Back to the centre of the prior" }),
    ),
    own,
  );
}

// Pictures may be dropped and pasted anywhere.
export function takeDrops() {
  const over = (e) => {
    if (![...(e.dataTransfer?.types || [])].includes("Files")) return;
    e.preventDefault();
    document.body.classList.toggle("dragging", e.type === "dragover");
  };
  addEventListener("dragover", over);
  addEventListener("dragleave", over);
  addEventListener("drop", (e) => {
    over(e);
    const file = e.dataTransfer?.files[0];
    if (file && session.backend.encodes) takePicture(file);
  });
  addEventListener("paste", (e) => {
    const file = [...(e.clipboardData?.files || [])][0];
    if (file && session.backend.encodes) takePicture(file);
  });
}

function sliders(place) {
  const { info } = session;
  const { order, value, unit, unused } = info.dims;
  const most = value ? Math.max(...value, 1e-9) : 1;
  const made = new Map();
  const reach = Math.max(3, Math.ceil(state.reach));
  const one = (dim) => {
    const input = h("input", { type: "range", min: -reach, max: reach, step: "any", "data-testid": `slider-${dim}`, "aria-label": `dimension ${dim}` });
    const out = h("output", {});
    input.addEventListener("input", () => {
      const code = Float32Array.from(state.code);
      code[dim] = Number(input.value);
      setCode(code, `your own, z${dim} moved last`, { pinned: true });
    });
    input.addEventListener("dblclick", () => {
      const code = Float32Array.from(state.code);
      code[dim] = 0;
      setCode(code, `your own, z${dim} set to 0`, { pinned: true });
    });
    made.set(dim, { input, out });
    const share = h("i", { class: "share" });
    if (value) share.style.width = `${(100 * Math.max(0, value[dim])) / most}%`;
    const carried = value ? `${fixed(value[dim])} ${unit === "nats" ? "nats" : "var"}` : "";
    return h("div", { class: "slider" }, h("span", { class: "dim" }, `z${dim}`), h("span", { class: "kl", title: unit === "nats" ? "KL of this dimension, averaged over test images" : "variance of the codes in this dimension" }, share, h("b", {}, carried)), input, out);
  };
  const alive = order.filter((d) => !value || value[d] >= unused);
  const dead = order.filter((d) => value && value[d] < unused);
  const first = alive.slice(0, 24);
  const rest = alive.slice(24);
  const free = session.backend.live;
  fill(
    place,
    h("h2", {}, "Dimensions", h("small", {}, value ? `by ${unit === "nats" ? "their KL" : "their variance"}` : "by number: no test images to sort them by")),
    free ? first.map(one) : h("p", { class: "note" }, "This file holds no decoder: the picture is that of the nearest code which was decoded when it was written."),
    free && rest.length ? h("details", {}, h("summary", {}, `${rest.length} more`), rest.map(one)) : null,
    free && dead.length ? h("details", { open: !alive.length }, h("summary", {}, `${dead.length} unused`), dead.map(one)) : null,
  );
  return {
    show() {
      if (!state.code) return;
      for (const [dim, { input, out }] of made) {
        const v = state.code[dim];
        if (Math.abs(v) > Number(input.max)) Object.assign(input, { min: -Math.ceil(Math.abs(v)), max: Math.ceil(Math.abs(v)) });
        if (document.activeElement !== input || Math.abs(Number(input.value) - v) > 1e-6) input.value = v;
        out.textContent = fixed(v);
      }
    },
  };
}

async function neighbours(place, decoded) {
  if (!rows() || !state.code || !session.shown) return;
  const code = state.code;
  const near = nearestRows(code, 7).filter(({ row }) => row !== state.row).slice(0, 6);
  const kept = await originals(near.map(({ row }) => row)).catch(() => new Map());
  if (code !== state.code) return;
  const { shape } = session.info;
  const cell = (pixels, at, title, onclick) => h("button", { type: "button", class: "cell", title, "aria-label": title, onclick }, picture(pixels, shape, at));
  const held = place.querySelector(".in-pixels");
  place.replaceChildren(
    h("h2", {}, "Nearest test images", h("small", {}, "by their codes")),
    h("div", { class: "strip" }, near.filter(({ row }) => kept.has(row)).map(({ row, distance }) => cell(kept.get(row), 0, `test image ${session.table.index[row]} ${labelOf(row)}, ${fixed(distance)} away`, () => (setRow(row), set({ pinned: true }))))),
    held || h("div", { class: "in-pixels" }),
  );
  if (!session.backend.live) return;
  try {
    const found = await session.backend.neighbours(state.run, session.shown.pixels);
    if (code !== state.code) return;
    place.querySelector(".in-pixels").replaceChildren(
      h("h2", {}, `Nearest ${found.of}`, h("small", {}, "by their pixels: is it memorised?")),
      h("div", { class: "strip" }, found.mse.slice(0, 6).map((mse, i) => h("span", { class: "cell", title: `squared error ${mse.toPrecision(3)}, of ${thousands(found.among)}` }, picture(found.pixels, shape, i)))),
    );
  } catch {
    place.querySelector(".in-pixels").replaceChildren();
  }
}
