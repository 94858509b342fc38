// Runs side by side: the same picture and the same draws through each.

import { h, fixed, amount, empty, thousands, button, icon } from "./dom.js";
import { state, set, on } from "./store.js";
import { session, said } from "./session.js";
import { picture, errorPicture } from "./pixels.js";

const DRAWS = 8;

export function compareView(place) {
  const grid = h("div", { class: "compare" });
  place.append(
    h("section", {}, h("h2", {}, "The same picture, the same draws"), h("div", { class: "toolbar" }, button("Other draws", "dice", () => set({ seed: (state.seed + 1) % 32 })), h("span", { class: "muted" }, session.ownBlob ? "your picture" : "drop, paste or draw a picture to send it through each run; until then, each run's own test image")), grid),
  );
  const draw = async () => {
    const found = await Promise.all(session.runs.map((run, i) => one(run, i)));
    grid.replaceChildren(...found);
  };
  draw();
  return on(["seed", "own"], draw);
}

async function one(run, i) {
  const { backend } = session;
  const head = (extra) => h("div", { class: "bar" }, h("h3", {}, run.name), extra);
  try {
    const info = i === state.run ? session.info : await backend.info(i);
    if (!info.z_dim) return h("article", { class: "card" }, head(), h("p", { class: "fault" }, info.error));
    const table = i === state.run ? session.table : await backend.columns(i);
    const from = (state.seed * DRAWS) % table.prior.shape[0];
    const draws = await backend.decode(i, table.prior.slice(from * info.z_dim, (from + DRAWS) * info.z_dim));
    const own = await through(i, info, table);
    const last = (name) => info.curves?.valid?.[name]?.filter((v) => v !== null).at(-1);
    const facts = [`${info.method} on ${info.data}`, `${info.z_dim} dimensions`, `step ${thousands(info.step)}`, last("elbo") === undefined ? null : `ELBO ${amount(last("elbo"))} (validation)`].filter(Boolean);
    return h(
      "article",
      { class: "card" },
      head(h("button", { type: "button", onclick: () => set({ run: i, view: "map" }) }, "open")),
      h("p", { class: "muted" }, facts.join(" · ")),
      own,
      h("p", { class: "caption" }, `draws ${from} to ${from + DRAWS - 1} from the prior, seed 0`),
      h("div", { class: "strip wide" }, Array.from({ length: DRAWS }, (_, k) => picture(draws, info.shape, k))),
    );
  } catch (error) {
    return h("article", { class: "card" }, head(), h("p", { class: "fault" }, said(error)));
  }
}

async function through(i, info, table) {
  let [original, code, words] = [null, null, ""];
  if (session.ownBlob) {
    const found = await session.backend.encode(i, session.ownBlob);
    [original, code, words] = [found.pixels, found.code, found.said ? `your picture: squared error ${amount(found.said.mse)}, anomaly score ${amount(found.said.score)}` : "your picture"];
  } else if (table.index?.length) {
    const row = state.seed % table.index.length;
    [original, code, words] = [await session.backend.images(i, [table.index[row]]), table.codes.slice(row * info.z_dim, (row + 1) * info.z_dim), `test image ${table.index[row]}: squared error ${amount(table.mse[row])}`];
  }
  if (!original) return null;
  const again = await session.backend.decode(i, Float32Array.from(code));
  return h("div", {}, h("p", { class: "caption" }, words), h("div", { class: "three large" }, picture(original, info.shape), picture(again, info.shape), errorPicture(original, again, info.shape)));
}
