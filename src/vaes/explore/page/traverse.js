// A walk along each dimension, one row each, sorted by what it carries; what it knows of each factor beside it.

import { h, fixed, checkbox, debounce, button, download, empty } from "./dom.js";
import { state, set, on } from "./store.js";
import { session, setCode, decode, said } from "./session.js";
import { picture, sheetOf, pngOf } from "./pixels.js";
import { css, ramp } from "./palette.js";
import { player } from "./film.js";

const COLUMNS = 11;
const MOST_ROWS = 32;

export function traverseView(place) {
  const { info, backend, table } = session;
  const { order, value, unit, unused } = info.dims;
  const stored = !backend.live && table.walks;
  const dims = (stored ? info.walks.dims : order).slice(0, MOST_ROWS);
  const alive = dims.filter((d) => !value || value[d] >= unused);
  const shown = alive.length ? alive : dims;
  const film = player("traversal");
  const fault = h("p", { class: "fault", hidden: true });
  const body = h("tbody");
  const reach = h("input", { type: "range", min: 0.5, max: 6, step: 0.5, value: state.reach, "aria-label": "reach", oninput: (e) => set({ reach: Number(e.target.value) }) });
  const reachText = h("output", {}, `±${state.reach}`);
  let sheet = [];
  place.append(
    h(
      "section",
      { class: "traverse" },
      h("div", { class: "toolbar" }, stored ? null : h("label", { class: "select" }, h("span", {}, "from −reach to reach"), reach, reachText), button("PNG", "save", async () => sheet.length && download("traversals.png", await pngOf(sheetOf(sheet, COLUMNS, 2, 2)))), h("span", { class: "muted" }, stored ? "all others at the centre of the prior" : "all others as in the code beside; a click takes a picture's code")),
      fault,
      h("div", { class: "split" }, h("div", { class: "scroll" }, h("table", { class: "walks" }, widths(info.information), heads(info.information), body)), film.element),
    ),
  );
  let chosen = shown[0];
  const at = (k) => (stored ? info.walks.values[k] : -state.reach + (2 * state.reach * k) / (COLUMNS - 1));

  const draw = async () => {
    const start = Float32Array.from(state.code);
    try {
      const codes = shown.flatMap((dim) => Array.from({ length: COLUMNS }, (_, k) => Float32Array.from(start, (v, d) => (d === dim ? at(k) : v))));
      const pixels = stored ? table.walks : await decode(codes);
      fault.hidden = true;
      sheet = [];
      body.replaceChildren(
        ...shown.map((dim, r) => {
          const cells = Array.from({ length: COLUMNS }, (_, k) => {
            const canvas = picture(pixels, info.shape, r * COLUMNS + k);
            sheet.push(canvas);
            const own = !stored && Math.abs(at(k) - start[dim]) <= state.reach / (COLUMNS - 1);
            return h("td", {}, h("button", { type: "button", class: own ? "cell own" : "cell", "aria-label": `z${dim} at ${fixed(at(k))}`, title: `z${dim} = ${fixed(at(k))}`, onclick: () => !stored && setCode(codes[r * COLUMNS + k], `z${dim} set to ${fixed(at(k))}`, { pinned: true }) }, canvas));
          });
          const carried = value ? `${fixed(value[dim])} ${unit === "nats" ? "nats" : "var"}` : "";
          const head = h("th", { scope: "row" }, h("button", { type: "button", class: "dim-name", "aria-pressed": String(dim === chosen), title: "play this dimension", onclick: () => ((chosen = dim), play(), marks()) }, h("b", {}, `z${dim}`), h("small", {}, carried)));
          head.firstChild.dataset.dim = dim;
          return h("tr", {}, head, cells, known(info.information, dim));
        }),
      );
      play();
    } catch (error) {
      fault.textContent = said(error);
      fault.hidden = false;
    }
  };
  const marks = () => body.querySelectorAll(".dim-name").forEach((b) => b.setAttribute("aria-pressed", String(Number(b.dataset.dim) === chosen)));
  const play = async () => {
    const row = shown.indexOf(chosen);
    if (stored) return film.show(sheet.slice(row * COLUMNS, (row + 1) * COLUMNS));
    const codes = Array.from({ length: 25 }, (_, k) => Float32Array.from(state.code, (v, d) => (d === chosen ? -state.reach + (2 * state.reach * k) / 24 : v)));
    const pixels = await decode(codes).catch(() => null);
    if (pixels) film.show(codes.map((_, k) => picture(pixels, info.shape, k)));
  };
  const soon = debounce(120, draw);
  const offs = stored ? [] : [on(["code", "reach"], () => ((reachText.textContent = `±${state.reach}`), soon()))];
  draw();
  return () => offs.forEach((off) => off());
}

function widths(information) {
  return h("colgroup", {}, h("col", { class: "name" }), Array.from({ length: COLUMNS }, () => h("col")), (information?.names || []).map(() => h("col", { class: "known" })));
}

function heads(information) {
  const factors = information ? information.names : [];
  return h("thead", {}, h("tr", {}, h("th", {}), h("th", { colspan: COLUMNS }), factors.map((name) => h("th", { class: "factor", scope: "col", title: `mutual information with ${name}, as a share of its entropy` }, h("span", {}, name)))));
}

function known(information, dim) {
  if (!information) return [];
  return information.names.map((name, f) => {
    const share = information.shares[dim][f];
    const cell = h("td", { class: "heat", title: `z${dim} knows ${fixed(100 * share, 0)} % of ${name}` }, fixed(share));
    cell.style.background = css(ramp(share));
    cell.style.color = share > 0.55 ? "#111" : "#fff";
    return cell;
  });
}
