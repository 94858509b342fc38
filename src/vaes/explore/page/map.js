// The latent map: codes of test images, what the plane decodes to beneath them, and the pointer that decodes.

import { h, segmented, select, checkbox, debounce, amount, thousands, button, toast } from "./dom.js";
import { state, set, on } from "./store.js";
import { session, rows, setCode, setRow, decode, originals, labelOf, said, codeOfRow } from "./session.js";
import { Points } from "./gl.js";
import { densityOf, levelsOf, contour } from "./density.js";
import { planeOf, planeChoices, umapWanted, colourChoices, colouring } from "./plane.js";
import { picture } from "./pixels.js";
import { css, token } from "./palette.js";
import { PAD, layersOf, drawOverlay } from "./overlay.js";
import { Tiles } from "./tiles.js";
import { Marks } from "./marks.js";
import { groupSheet } from "./groups.js";

const LAYERS = [["tiles", "decoded"], ["dots", "codes"], ["thumbs", "originals"], ["rings", "prior rings"], ["lines", "q(z) density"]];

const WHAT = ["marks", "place", "all"];

export function mapView(place) {
  const view = new MapView(place);
  return () => view.close();
}

class MapView {
  constructor(place) {
    this.alone = null; // the class shown alone
    this.tool = "probe";
    this.offs = [];
    // One opaque canvas: to lay several over each other in every frame is slow without a graphics card.
    this.world = h("canvas", { class: "world", "aria-hidden": "true" });
    this.pen = this.world.getContext("2d", { alpha: false });
    this.tiles = new Tiles(this);
    this.marks = new Marks(this);
    this.tip = h("div", { class: "tip", hidden: true });
    this.stage = h(
      "div",
      { class: "stage", "data-testid": "map", tabindex: "0", role: "application", "aria-label": "Latent map. Arrow keys move over the plane and the picture follows; plus and minus zoom, 0 shows everything, Enter pins." },
      this.world,
      this.marks.elements,
      this.tip,
    );
    this.legend = h("div", { class: "legend" });
    this.note = h("p", { class: "note" });
    place.append(h("div", { class: "map" }, this.toolbar(), this.stage, this.legend, this.note), (this.sheet = h("div", { class: "groups" })));
    this.points = new Points(h("canvas"));
    this.bind();
    this.resize = new ResizeObserver(() => this.fit());
    this.resize.observe(this.stage);
    this.data();
    this.offs.push(
      on(["plane"], () => this.data(true)),
      on(["colour"], () => this.recolour()),
      on(["layers"], () => (this.tiles.later(), this.recolour())),
      on(["code", "pinned"], () => this.later("marks")),
      on(["table"], () => this.data()),
      on(["theme"], () => this.recolour()),
    );
  }

  close() {
    session.dragging = false;
    this.closed = true;
    this.resize.disconnect();
    this.offs.forEach((off) => off());
  }

  toolbar() {
    const planes = planeChoices();
    const layers = () => new Set(state.layers.split(","));
    const change = (key, shown) => {
      const now = layers();
      if (shown) now.add(key);
      else now.delete(key);
      set({ layers: [...now].filter(Boolean).join(",") });
    };
    const live = session.info.z_dim && (session.backend.live || session.table.grid);
    return h(
      "div",
      { class: "toolbar" },
      segmented("What dragging does", [["probe", "Decode under the pointer", "point"], ["pan", "Move the map", "hand"], ["lasso", "Draw around codes", "lasso"]], this.tool, (tool) => {
        this.tool = tool;
        this.stage.dataset.tool = tool;
      }),
      button("Show everything", "fit", () => this.everything(), { bare: true }),
      h("span", { class: "layers" }, LAYERS.filter(([key]) => live || key !== "tiles").map(([key, name]) => checkbox(name, layers().has(key), (shown) => change(key, shown)))),
      planes.length ? select("plane", planes, state.plane || planes[0][0], (plane) => set({ plane, camera: null })) : null,
      colourChoices().length ? select("colour", colourChoices(), state.colour, (colour) => set({ colour })) : null,
    );
  }

  // What is shown

  data(moved) {
    this.plane = planeOf();
    if (umapWanted() && this.plane.names[0] !== "UMAP 1") this.askUmap();
    this.points.fill("place", this.plane.points);
    this.lines = null;
    this.found = null;
    const missing = session.info.data_error;
    const { done, of } = session.info.encoded || { done: rows(), of: rows() };
    this.note.textContent = missing
      ? `No codes of images are shown: ${missing}. The decoder works all the same.`
      : `${thousands(rows())} test images${of && done < of ? ` of ${thousands(of)}, more are being encoded` : ""}. Axes: ${this.plane.names.join(", ")}. Click pins the picture; wheel or pinch zooms.`;
    this.recolour();
    if (moved || !this.camera) {
      this.camera = null;
      this.fit();
    } else this.later();
  }

  // The server computes it; principal components are shown until it is there.
  async askUmap() {
    const { run } = state;
    if (this.asking || !session.backend.server) return;
    this.asking = true;
    try {
      while (!this.closed && run === state.run && umapWanted()) {
        const { arrays, said: told } = await session.backend.umap(run);
        if (arrays.umap) {
          session.table.umap = arrays.umap;
          if (arrays.umap.length === 2 * rows()) this.data(true);
          break;
        }
        this.note.textContent = `UMAP of ${thousands(rows())} codes is being computed: ${told.seconds} s so far. Until then, principal components.`;
        await new Promise((done) => setTimeout(done, 1000));
      }
    } catch (error) {
      this.note.textContent = `${said(error)}. Principal components are shown.`;
      toast(said(error));
    }
    this.asking = false;
  }

  recolour() {
    this.colours = colouring();
    const n = rows();
    const colour = new Uint8Array(4 * n);
    const shown = new Float32Array(n);
    for (let row = 0; row < n; row++) {
      colour.set([...this.colours.colour(row), 255], 4 * row);
      shown[row] = this.alone === null || this.colours.of(row) === this.alone ? 1 : 0;
    }
    this.points.fill("colour", colour);
    this.points.fill("shown", shown);
    this.paintLegend();
    this.later();
  }

  paintLegend() {
    const { names, title, low, high } = this.colours;
    if (!names) {
      const scale = low === undefined ? [] : [h("span", {}, `${title}: ${amount(low)}`), h("span", { class: "ramp" }), h("span", {}, amount(high))];
      this.legend.replaceChildren(...scale);
      return;
    }
    const few = names.slice(0, 40).map((name, k) => {
      const chip = h("button", { type: "button", class: "chip", "aria-pressed": String(this.alone === k), title: `show ${name} alone`, onclick: () => this.only(k) }, h("i"), name);
      chip.firstChild.style.background = css(this.colours.swatch(k));
      return chip;
    });
    this.legend.replaceChildren(...few, names.length > 40 ? `and ${names.length - 40} more` : "");
  }

  only(k) {
    this.alone = this.alone === k ? null : k;
    this.recolour();
  }

  // Where the map stands

  fit() {
    const { clientWidth: w, clientHeight: hgt } = this.stage;
    if (!w || !hgt) return;
    const ratio = devicePixelRatio || 1;
    for (const canvas of [this.world, this.points.canvas]) Object.assign(canvas, { width: Math.round((w + 2 * PAD) * ratio), height: Math.round((hgt + 2 * PAD) * ratio) });
    for (const [side, size] of [["width", w], ["height", hgt]]) this.world.style[side] = `${size + 2 * PAD}px`;
    this.drawn = null;
    if (!this.camera && state.camera) this.camera = { x: state.camera[0], y: state.camera[1], scale: state.camera[2] };
    else if (!this.camera) this.everything(false);
    this.moved(false);
  }

  everything(tell = true) {
    const { clientWidth: w, clientHeight: hgt } = this.stage;
    const { points } = this.plane;
    const reach = session.info.standard && session.info.z_dim <= 2 ? 3.2 : 0.5;
    const ends = [0, 1].map((c) => {
      const column = Float32Array.from({ length: points.length / 2 }, (_, i) => points[2 * i + c]).sort();
      const at = (share) => (column.length ? column[Math.floor(share * (column.length - 1))] : 0);
      return [Math.min(at(0.003), -reach), Math.max(at(0.997), reach)];
    });
    const scale = 0.94 * Math.min(w / (ends[0][1] - ends[0][0]), hgt / (ends[1][1] - ends[1][0]));
    this.camera = { x: (ends[0][0] + ends[0][1]) / 2, y: (ends[1][0] + ends[1][1]) / 2, scale };
    if (tell) this.moved();
  }

  moved(tell = true) {
    if (tell) set({ camera: Float32Array.of(this.camera.x, this.camera.y, this.camera.scale) });
    this.tiles.later();
    this.later(this.drawn ? "place" : "all");
  }

  zoom(factor, px, py) {
    const [x, y] = this.toPlane(px, py);
    this.camera.scale = Math.min(Math.max(this.camera.scale * factor, 0.5), 1e6);
    const [u, v] = this.toPlane(px, py);
    this.camera.x += x - u;
    this.camera.y += y - v;
    this.moved();
  }

  toPlane(px, py) {
    const { clientWidth: w, clientHeight: hgt } = this.stage;
    return [this.camera.x + (px - w / 2) / this.camera.scale, this.camera.y - (py - hgt / 2) / this.camera.scale];
  }

  toScreen(x, y) {
    const { clientWidth: w, clientHeight: hgt } = this.stage;
    return [w / 2 + (x - this.camera.x) * this.camera.scale, hgt / 2 - (y - this.camera.y) * this.camera.scale];
  }

  // Before the next frame: draw everything ("all"), move what was drawn ("place"), or only what marks the code ("marks").
  later(what = "all") {
    this.wanted = Math.max(this.wanted || 0, WHAT.indexOf(what));
    if (this.waiting || this.closed) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      const wanted = WHAT[this.wanted];
      this.wanted = 0;
      if (wanted === "all" || (wanted === "place" && !this.shift())) this.draw();
      else this.marks.place();
    });
  }

  // While the map moves, what was drawn moves with it: drawing waits until it stands still, or until what was drawn
  // beyond its edges is used up.
  shift() {
    const { drawn, camera } = this;
    const [x, y] = [(drawn.x - camera.x) * camera.scale, (camera.y - drawn.y) * camera.scale];
    if (drawn.scale === camera.scale && Math.max(Math.abs(x), Math.abs(y)) > PAD) return false;
    this.world.style.transform = `translate(${x}px, ${y}px) scale(${camera.scale / drawn.scale})`;
    this.settle();
    return true;
  }

  settle = debounce(200, () => this.drag || this.later());

  draw() {
    if (!this.camera || this.closed) return;
    const layers = layersOf();
    const { pen } = this;
    const ratio = devicePixelRatio || 1;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = token("--panel");
    pen.fillRect(0, 0, this.world.width, this.world.height);
    pen.setTransform(ratio, 0, 0, ratio, PAD * ratio, PAD * ratio); // the stage's own pixels
    this.tiles.draw(pen, layers);
    const n = rows();
    const zoomed = Math.max(1, this.camera.scale / 120);
    const size = Math.min(12, (n > 30000 ? 3 : n > 3000 ? 5 : 7) * Math.sqrt(zoomed));
    if (layers.has("dots")) {
      this.points.draw(this.camera, size, layers.has("tiles") ? 0.85 : n > 30000 ? 0.55 : 0.8);
      pen.drawImage(this.points.canvas, -PAD, -PAD, this.points.canvas.width / ratio, this.points.canvas.height / ratio);
    }
    if (layers.has("lines") && !this.lines && n > 10) {
      const density = densityOf(this.plane.points);
      this.lines = levelsOf(density, [0.25, 0.5, 0.75, 0.95]).map((level) => contour(density, level));
    }
    drawOverlay(this, pen, layers);
    this.drawn = { ...this.camera };
    this.world.style.transform = "";
    this.marks.place();
  }

  // Hands

  bind() {
    const { stage } = this;
    const fingers = new Map();
    const where = (e) => {
      const box = stage.getBoundingClientRect();
      return [e.clientX - box.left, e.clientY - box.top];
    };
    stage.dataset.tool = this.tool;
    stage.addEventListener("wheel", (e) => {
      e.preventDefault();
      this.zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0016)), ...where(e));
    }, { passive: false });
    stage.addEventListener("contextmenu", (e) => e.preventDefault());
    stage.addEventListener("pointerdown", (e) => {
      stage.setPointerCapture(e.pointerId);
      fingers.set(e.pointerId, where(e));
      const tool = e.button === 2 || e.button === 1 ? "pan" : e.shiftKey ? "lasso" : this.tool;
      this.drag = { tool, from: where(e), last: where(e), far: 0, path: [where(e)] };
      session.dragging = true;
      if (tool === "probe" && e.pointerType !== "mouse") this.probe(...where(e));
    });
    stage.addEventListener("pointermove", (e) => {
      const now = where(e);
      if (fingers.has(e.pointerId) && fingers.size === 2) return this.pinch(fingers, e.pointerId, now);
      if (!this.drag) return this.hover(...now, e.pointerType === "mouse" && this.tool === "probe");
      const { drag } = this;
      drag.far = Math.max(drag.far, Math.hypot(now[0] - drag.from[0], now[1] - drag.from[1]));
      if (drag.tool === "pan") {
        this.camera.x -= (now[0] - drag.last[0]) / this.camera.scale;
        this.camera.y += (now[1] - drag.last[1]) / this.camera.scale;
        this.moved();
      } else if (drag.tool === "lasso") {
        drag.path.push(now);
        this.later("marks");
      } else if (drag.far > 3) {
        if (state.pinned) set({ pinned: false });
        this.probe(...now);
      }
      drag.last = now;
    });
    const end = (e) => {
      fingers.delete(e.pointerId);
      const { drag } = this;
      this.drag = null;
      session.dragging = false;
      if (this.drawn) this.settle();
      if (!drag || e.type === "pointercancel") return;
      if (drag.tool === "lasso" && drag.path.length > 4) this.caught(drag.path);
      else if (drag.far <= 3 && drag.tool === "probe" && e.pointerType === "mouse") this.press(...drag.from);
      this.later("marks");
    };
    stage.addEventListener("pointerup", end);
    stage.addEventListener("pointercancel", end);
    stage.addEventListener("pointerleave", () => {
      this.tip.hidden = true;
      this.near = null;
      this.later("marks");
    });
    stage.addEventListener("keydown", (e) => this.key(e));
  }

  pinch(fingers, id, now) {
    const other = [...fingers].find(([key]) => key !== id)[1];
    const before = fingers.get(id);
    fingers.set(id, now);
    this.drag = { tool: "pinch", far: 99, from: now, last: now };
    const spread = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
    this.camera.x -= (now[0] - before[0]) / 2 / this.camera.scale;
    this.camera.y += (now[1] - before[1]) / 2 / this.camera.scale;
    this.zoom(spread(now) / spread(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }

  hover(px, py, decoding) {
    if (!this.camera) return;
    if (decoding && !state.pinned) this.probe(px, py);
    this.showNear(px, py);
  }

  probe(px, py) {
    const words = session.backend.live ? "the place under the pointer" : "the stored picture nearest to the pointer";
    setCode(this.plane.toCode(...this.toPlane(px, py)), words);
  }

  press(px, py) {
    const near = this.nearest(px, py, 9);
    if (near !== null && state.pinned === false) {
      setRow(near);
      set({ pinned: true });
    } else if (state.pinned) {
      set({ pinned: false });
      this.probe(px, py);
    } else {
      this.probe(px, py);
      set({ pinned: true });
    }
  }

  key(e) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
    const centre = [this.stage.clientWidth / 2, this.stage.clientHeight / 2];
    if (step) {
      const [x, y] = this.plane.fromCode(state.code);
      const by = (e.shiftKey ? 40 : 8) / this.camera.scale;
      setCode(this.plane.toCode(x + step[0] * by, y + step[1] * by), "a place of the map");
    } else if (e.key === "+" || e.key === "=") this.zoom(1.25, ...centre);
    else if (e.key === "-") this.zoom(0.8, ...centre);
    else if (e.key === "0") this.everything();
    else if (e.key === "Enter") set({ pinned: !state.pinned });
    else if (e.key === "Escape") set({ pinned: false });
    else return;
    e.preventDefault();
  }

  nearest(px, py, reach) {
    const [x, y] = this.toPlane(px, py);
    const { points } = this.plane;
    let best = (reach / this.camera.scale) ** 2;
    let found = null;
    for (let row = 0; row < points.length / 2; row++) {
      const distance = (points[2 * row] - x) ** 2 + (points[2 * row + 1] - y) ** 2;
      if (distance < best && (this.alone === null || this.colours.of(row) === this.alone)) [best, found] = [distance, row];
    }
    return found;
  }

  // The image under the pointer, beside its reconstruction.
  showNear(px, py) {
    const near = layersOf().has("dots") || layersOf().has("thumbs") ? this.nearest(px, py, 9) : null;
    if (near === this.near) return;
    this.near = near;
    this.later("marks");
    this.tip.hidden = true;
    if (near !== null) this.tell(near);
  }

  // A moment later, so that a pointer that goes on asks for nothing.
  tell = debounce(70, async (near) => {
    if (this.near !== near || this.closed) return;
    const [kept, again] = await Promise.all([originals([near]), this.again(near)]).catch(() => [null, null]);
    if (!kept?.has(near) || this.near !== near) return;
    const { shape } = session.info;
    const label = labelOf(near);
    const pictures = [h("figure", {}, picture(kept.get(near), shape), h("figcaption", {}, "original"))];
    if (again) pictures.push(h("figure", {}, picture(again.pixels, shape, again.at), h("figcaption", {}, "reconstruction")));
    this.tip.replaceChildren(h("div", { class: "pair" }, pictures), h("p", {}, label === "" ? `image ${session.table.index[near]}` : `“${label}”, image ${session.table.index[near]}`));
    const [x, y] = this.toScreen(this.plane.points[2 * near], this.plane.points[2 * near + 1]);
    this.tip.hidden = false;
    const right = x + 20 + this.tip.offsetWidth < this.stage.clientWidth;
    this.tip.style.left = `${Math.max(6, right ? x + 14 : x - 14 - this.tip.offsetWidth)}px`;
    this.tip.style.top = `${Math.max(6, Math.min(y - 40, this.stage.clientHeight - this.tip.offsetHeight - 6))}px`;
  });

  async again(row) {
    if (session.backend.live) return { pixels: await decode(codeOfRow(row)), at: 0 };
    return session.table.again ? { pixels: session.table.again, at: row } : null;
  }

  async caught(path) {
    const caught = [];
    const { points } = this.plane;
    for (let row = 0; row < points.length / 2; row++) {
      const [x, y] = this.toScreen(points[2 * row], points[2 * row + 1]);
      let inside = false;
      for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
        const [[a, b], [c, d]] = [path[i], path[j]];
        if (b > y !== d > y && x < ((c - a) * (y - b)) / (d - b) + a) inside = !inside;
      }
      if (inside && (this.alone === null || this.colours.of(row) === this.alone)) caught.push(row);
    }
    await groupSheet(this.sheet, caught);
  }
}
