// Test images beside their reconstructions and what is missed, from worst to best.

import { h, select, amount, empty, fixed } from "./dom.js";
import { state, set, on } from "./store.js";
import { session, rows, decode, codeOfRow, originals, setRow, labelOf, said } from "./session.js";
import { picture, errorPicture } from "./pixels.js";

const PAGE = 48;
const ORDERS = { worst: ["mse", -1, "worst squared error first"], best: ["mse", 1, "best squared error first"], odd: ["score", -1, "oddest first (anomaly score)"], rate: ["rate", -1, "most nats in the code first"], any: ["", 1, "in random order"] };

export function reconstructView(place) {
  if (!rows()) return void place.append(empty(session.info.data_error ? `There are no originals to show: ${session.info.data_error}` : "No test image is encoded yet."));
  const grid = h("div", { class: "triples" });
  const more = h("button", { type: "button", class: "more", onclick: () => add() }, "More");
  const choices = Object.entries(ORDERS).filter(([, [column]]) => !column || Number.isFinite(session.table[column]?.[0])).map(([key, [, , text]]) => [key, text]);
  place.append(h("section", {}, h("div", { class: "toolbar" }, select("order", choices, state.sort, (sort) => set({ sort })), h("span", { class: "muted" }, "original, reconstruction, what is missed")), grid, more));
  let list = [];
  const begin = () => {
    const [column, sign] = ORDERS[state.sort] || ORDERS.worst;
    list = Array.from({ length: rows() }, (_, row) => row);
    if (column) list.sort((a, b) => sign * (session.table[column][a] - session.table[column][b]));
    grid.replaceChildren();
    add();
  };
  const add = async () => {
    const part = list.slice(grid.children.length, grid.children.length + PAGE);
    more.hidden = grid.children.length + part.length >= list.length;
    if (!part.length) return;
    try {
      const { info, backend, table } = session;
      const [kept, pixels] = await Promise.all([originals(part), backend.live ? decode(part.map(codeOfRow)) : table.again]);
      grid.append(
        ...part.map((row, i) => {
          const at = backend.live ? i : row;
          const label = labelOf(row);
          const words = `${label === "" ? "" : `“${label}” `}error ${amount(table.mse[row])}`;
          return h("button", { type: "button", class: "triple", title: `test image ${table.index[row]}, ${words}, anomaly score ${amount(table.score[row])}`, onclick: () => (setRow(row), set({ pinned: true })) }, h("span", { class: "three" }, picture(kept.get(row), info.shape), picture(pixels, info.shape, at), errorPicture(kept.get(row), pixels, info.shape, 0, at)), h("small", {}, words));
        }),
      );
    } catch (error) {
      grid.append(h("p", { class: "fault" }, said(error)));
    }
  };
  begin();
  return on(["sort"], begin);
}
