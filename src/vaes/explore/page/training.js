// How the training went: curves of every term, what they mean in words, and its pictures as a film.

import { h, empty, thousands, icon, button } from "./dom.js";
import { state, set, on } from "./store.js";
import { session, said } from "./session.js";
import { chart } from "./chart.js";
import { diagnosisCards } from "./numbers.js";

const MEANING = { elbo: "ELBO, nats per image", loss: "loss, nats per image", distortion: "distortion, −E log p(x|z), nats", rate: "rate, KL(q(z|x) ‖ p(z)), nats", mse: "squared error of a pixel", beta: "beta", lr: "learning rate" };
const ORDER = ["elbo", "distortion", "rate", "mse", "loss"];

export function trainingView(place) {
  const curves = h("div", { class: "charts", "data-testid": "curves" });
  const cards = h("div", { class: "cards" });
  place.append(h("section", {}, h("h2", {}, "What the numbers say"), cards), h("section", {}, h("h2", {}, "Curves", h("small", {}, session.backend.server ? "live while the run goes on" : "")), curves), filmSection());
  const draw = () => {
    diagnosisCards(cards);
    const given = session.info.curves || {};
    if (session.info.curves_error) return curves.replaceChildren(empty(session.info.curves_error));
    const names = [...new Set(Object.values(given).flatMap((columns) => Object.keys(columns)))].filter((name) => name !== "step");
    if (!names.length) return curves.replaceChildren(empty("There are no curves: the run folder has no metrics.jsonl, or nothing is in it yet."));
    names.sort((a, b) => place2(a) - place2(b));
    curves.replaceChildren(
      ...names.map((name) => {
        const lines = Object.entries(given).filter(([, columns]) => columns[name]?.some((v) => v !== null)).map(([split, columns]) => ({ name: split, step: columns.step, value: columns[name], colour: split === "train" ? "--train" : "--valid", dash: split === "train" ? [] : [6, 4] }));
        return lines.length ? chart(MEANING[name] || `${name}, nats per image`, lines) : null;
      }).filter(Boolean),
    );
  };
  draw();
  return on(["table", "theme", "curves"], draw);
}

function place2(name) {
  const at = ORDER.indexOf(name);
  return at < 0 ? (name === "lr" || name === "beta" ? 99 : 50) : at;
}

function filmSection() {
  const steps = session.info.film || [];
  if (!steps.length) return h("section", {}, h("h2", {}, "Pictures over the steps"), empty("The training left no pictures (train.sample_freq)."));
  const image = h("img", { class: "film", alt: "" });
  const words = h("output", {});
  let timer = 0;
  const kept = new Map();
  const show = async (k) => {
    slider.value = k;
    words.textContent = `step ${thousands(steps[k])}`;
    image.alt = `reconstructions and samples at step ${steps[k]}`;
    try {
      if (!kept.has(k)) kept.set(k, URL.createObjectURL(await session.backend.frame(state.run, steps[k])));
      if (Number(slider.value) === k) image.src = kept.get(k);
    } catch (error) {
      words.textContent = said(error);
    }
  };
  const slider = h("input", { type: "range", min: 0, max: steps.length - 1, step: 1, value: steps.length - 1, "aria-label": "step of the training", oninput: (e) => show(Number(e.target.value)) });
  const toggle = button("Play", "play", () => {
    if (timer) {
      clearInterval(timer);
      timer = 0;
      return;
    }
    timer = setInterval(() => (image.isConnected ? show((Number(slider.value) + 1) % steps.length) : clearInterval(timer)), 700);
  }, { bare: true });
  show(steps.length - 1);
  return h("section", {}, h("h2", {}, "Pictures over the steps"), h("div", { class: "bar" }, steps.length > 1 ? toggle : null, steps.length > 1 ? slider : null, words), image);
}
