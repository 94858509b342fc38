// How the training went: curves of every term, what they mean in words, and its pictures as a film.

import { h, empty, thousands } from "./dom.js";
import { state, on } from "./store.js";
import { session, said } from "./session.js";
import { chart } from "./chart.js";
import { diagnosisCards } from "./numbers.js";
import { overSteps } from "./film.js";
import { formingSection } from "./forming.js";

const MEANING = { elbo: "ELBO", distortion: "distortion, −E log p(x|z)", rate: "rate, KL(q(z|x) ‖ p(z))", mse: "squared error", lr: "learning rate" };
const ORDER = ["elbo", "distortion", "rate", "mse", "loss"];

export function trainingView(place) {
  const curves = h("div", { class: "charts", "data-testid": "curves" });
  const cards = h("div", { class: "cards" });
  const plane = session.info.z_shape?.join() === "2" && session.info.support === "real vectors";
  const films = [lasting(formingSection, "planes", plane ? "The training kept no latent planes (train.plane_freq)." : ""), lasting(filmSection, "film", "The training left no pictures (train.sample_freq).")];
  place.append(
    films[0].element,
    h("section", {}, h("h2", {}, "What the numbers say"), cards),
    h("section", {}, h("h2", {}, "Curves", h("small", {}, session.backend.server ? "live while the run goes on" : "")), curves),
    films[1].element,
  );
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
        return lines.length ? chart([MEANING[name] || name, session.info.units?.[name]].filter(Boolean).join(", "), lines) : null;
      }).filter(Boolean),
    );
  };
  draw();
  return on(["table", "theme", "curves"], () => (draw(), films.forEach((film) => film.look())));
}

// A section that is made once there is something to see, and then told when there may be more.
function lasting(make, key, missing) {
  const element = h("div", {});
  let more = null;
  const look = () => {
    if (more) return more();
    const fault = session.info[`${key}_error`];
    if (!fault && session.info[key]?.length) {
      const [section, again] = make();
      more = again;
      element.replaceChildren(section);
    } else if (fault || missing) element.replaceChildren(empty(fault || missing));
  };
  look();
  return { element, look };
}

function place2(name) {
  const at = ORDER.indexOf(name);
  return at < 0 ? (session.info.units?.[name] ? 50 : 99) : at;
}

function filmSection() {
  let steps = session.info.film;
  const image = h("img", { class: "film", alt: "" });
  const words = h("output", {});
  const kept = new Map();
  let shown = -1;
  const show = async (at) => {
    const step = steps[Math.floor(at)];
    if (step === shown) return;
    shown = step;
    words.textContent = `step ${thousands(step)}`;
    image.alt = `reconstructions and samples at step ${step}`;
    try {
      if (!kept.has(step)) kept.set(step, URL.createObjectURL(await session.backend.frame(state.run, step)));
      if (shown === step) image.src = kept.get(step);
    } catch (error) {
      words.textContent = said(error);
    }
  };
  const player = overSteps("the training's pictures", steps.length, show, 700);
  player.go(steps.length - 1);
  const element = h("section", {}, h("h2", {}, "Pictures over the steps"), h("div", { class: "bar" }, ...player.parts, words), image);
  const more = () => {
    if (session.info.film?.length) steps = session.info.film; // a folder that vanished takes nothing from the page
    player.grow(steps.length);
  };
  return [element, more];
}
