// What the lasso caught: a sheet of originals, and a name for later arithmetic.

import { h, button, thousands } from "./dom.js";
import { session, originals, codeOfRow, setRow } from "./session.js";
import { picture } from "./pixels.js";
import { set } from "./store.js";

export async function groupSheet(place, caught) {
  if (!caught.length) {
    place.replaceChildren(h("p", { class: "note" }, "The lasso caught no codes."));
    return;
  }
  const name = `lasso ${session.groups.length + 1}`;
  session.groups.push({ name, mean: meanOf(caught) });
  const shown = caught.slice(0, 96);
  const kept = await originals(shown);
  place.replaceChildren(
    h("div", { class: "bar" }, h("strong", {}, `${name}: ${thousands(caught.length)} images`), h("span", { class: "muted" }, shown.length < caught.length ? `the first ${shown.length} are shown; ` : "", "the group can be used in Interpolate"), button("Close", "close", () => place.replaceChildren(), { bare: true })),
    h("div", { class: "sheet" }, shown.map((row) => h("button", { type: "button", class: "cell", "aria-label": `test image ${session.table.index[row]}`, onclick: () => (setRow(row), set({ pinned: true })) }, picture(kept.get(row), session.info.shape)))),
  );
}

export function meanOf(list) {
  const dim = session.info.z_dim;
  const mean = new Float64Array(dim);
  for (const row of list) codeOfRow(row).forEach((v, d) => (mean[d] += v / list.length));
  return Float32Array.from(mean);
}
