// Every number with its interval and its definition, the configuration, and how the run is made again.

import { h, empty, amount, thousands, button, download, toast } from "./dom.js";
import { on } from "./store.js";
import { session } from "./session.js";

const LEVELS = { good: "fine", look: "worth a look", bad: "a fault" };

export function diagnosisCards(place) {
  const found = session.info.diagnosis || [];
  if (!found.length) return place.replaceChildren(empty("Nothing can be said yet: that takes test images and curves."));
  place.replaceChildren(...found.map((one) => h("article", { class: `card ${one.level}` }, h("h3", {}, h("span", { class: "level" }, LEVELS[one.level] || one.level), one.title), h("p", {}, one.text), one.change ? h("p", { class: "change" }, "What would help: ", h("code", {}, one.change)) : null)));
}

export function numbersView(place) {
  const metrics = h("div", { "data-testid": "metrics" });
  place.append(h("section", {}, h("h2", {}, "Numbers"), metrics), h("section", {}, h("h2", {}, "How it was made"), made()));
  const draw = () => metrics.replaceChildren(...tested(), ...evaluated());
  draw();
  return on(["table", "curves"], draw);
}

function tested() {
  const { tested: found, tested_error: fault } = session.info;
  if (fault) return [empty(fault)];
  if (!found) return [];
  const rows = Object.entries(found.test).map(([name, one]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, amount(one.value)), h("td", { class: "muted" }, one.stderr === null ? "" : `± ${amount(Number((1.96 * one.stderr).toPrecision(2)))}`), h("td", { class: "muted" }, `${one.unit}, n ${thousands(one.n)}`)));
  return [h("h3", {}, `On the test images, at the end of the training (step ${thousands(found.step)})`), h("div", { class: "scroll" }, h("table", { class: "metrics" }, h("tbody", {}, rows)))];
}

function evaluated() {
  const { numbers: found, numbers_error: fault, name } = session.info;
  if (fault) return [empty(fault)];
  if (!found) return [empty("There is no evaluation yet: ", h("code", {}, `vaes evaluate ${name}`), " writes likelihoods, FID, probes and more, each with its error, and they appear here.")];
  const stale = found.same ? [] : [h("p", { class: "fault" }, `These numbers are of another checkpoint, of step ${thousands(found.step)}.`)];
  return [
    ...stale,
    ...found.groups.map((group) =>
      h(
        "details",
        { open: true, class: "group" },
        h("summary", {}, group.name, h("small", {}, `${group.split} images`)),
        h(
          "div",
          { class: "scroll" },
          h(
            "table",
            { class: "metrics" },
            h("tbody", {}, group.metrics.map((m) => h("tr", {}, h("th", { scope: "row" }, h("span", { class: "defined", tabindex: "0", title: m.definition }, m.name, h("span", { class: "definition", role: "note" }, m.definition, h("em", {}, `n ${thousands(m.n)}${m.seed === null ? "" : `, seed ${m.seed}`}, version ${m.version}${m.features ? `, features ${m.features}` : ""}`)))), h("td", {}, m.text), h("td", { class: "muted" }, m.interval ? `[${m.interval.join(", ")}]` : ""), h("td", { class: "muted" }, [m.features, m.note].filter(Boolean).join("; "))))),
          ),
        ),
        group.skipped.length ? h("details", { class: "skipped" }, h("summary", {}, `${group.skipped.length} skipped`), h("ul", {}, group.skipped.map((s) => h("li", {}, h("b", {}, s.name), `: ${s.reason}`)))) : null,
      ),
    ),
  ];
}

function made() {
  const { info } = session;
  const runs = (info.history || []).map((one) => {
    const versions = Object.entries(one.versions || {}).map(([k, v]) => `${k} ${v}`).join(", ");
    const machine = Object.entries(one.machine || {}).map(([k, v]) => `${k} ${v}`).join(", ");
    return h("li", {}, h("b", {}, `from step ${thousands(one.step)}`), one.reading ? h("p", {}, one.reading) : null, h("p", { class: "muted" }, versions), h("p", { class: "muted" }, machine));
  });
  const version = info.history?.at(-1)?.versions?.vaes;
  const lines = [version ? `pip install vaes==${version}` : "pip install vaes", `vaes train -c config.yaml -e runs/again`, `vaes evaluate runs/again`].join("\n");
  const weights = info.sha256 ? h("p", { class: "muted" }, `weights: ${info.which}, SHA-256 ${info.sha256}`) : null;
  return h(
    "div",
    { class: "made" },
    info.history_error ? empty(info.history_error) : h("ol", { class: "history" }, runs),
    weights,
    h("h3", {}, "Again"),
    h("pre", {}, lines),
    info.config ? h("div", { class: "bar" }, h("h3", {}, "Configuration"), button("config.yaml", "save", () => download("config.yaml", new Blob([info.config], { type: "text/yaml" })))) : null,
    info.config ? h("pre", { class: "config", tabindex: "0", "aria-label": "configuration" }, info.config) : null,
  );
}
