// The Python lines that make what is shown.

import { h, button, toast } from "./dom.js";
import { state } from "./store.js";
import { session } from "./session.js";

function list(code) {
  return `[${[...code].map((v) => String(Number(v.toPrecision(8)))).join(", ")}]`;
}

export function pythonLines() {
  const { info } = session;
  const which = info.asked && info.asked !== "best" ? `, checkpoint="${info.asked}"` : "";
  const head = ["import torch", "import vaes", "", `run = vaes.load(${JSON.stringify(`runs/${info.name}`)}${which})  # ${info.which}`];
  const code = `code = torch.tensor(${list(state.code)})`;
  const bodies = {
    traverse: [code, `walks = [run.traverse(dim, n=11, reach=${state.reach}, start=code) for dim in ${JSON.stringify(info.dims.order.slice(0, 32))}]`],
    interpolate: [`a, b = torch.tensor(${list(state.a || state.code)}), torch.tensor(${list(state.b || state.code)})`, `path = run.model.interpolate(a[None], b[None], n=11, path="${state.path}")`],
    reconstruct: ["images, again = run.reconstruct(\"test\", n=64)"],
    training: ["train, valid = run.history.train, run.history.valid"],
    numbers: ["evaluation = run.evaluate()"],
    compare: [`draws = run.sample(256, seed=0)[${(state.seed * 8) % 256}:][:8]`],
  };
  return [...head, ...(bodies[state.view] || [code, "picture = run.decode(code[None])[0]  # (C, H, W), in run.model.value_range"])].join("\n");
}

export function pythonDialog() {
  const text = pythonLines();
  const dialog = h("dialog", { class: "python", "aria-label": "Python lines" }, h("div", { class: "bar" }, h("strong", {}, "The same in Python"), button("Close", "close", () => dialog.close(), { bare: true })), h("pre", {}, text), h("button", { type: "button", onclick: () => navigator.clipboard?.writeText(text).then(() => toast("copied"), () => toast("the browser does not let pages copy here: select the lines")) }, "Copy"));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
