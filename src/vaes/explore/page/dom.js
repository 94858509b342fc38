// Elements of text and properties: nothing here, or anywhere, ever parses foreign text as HTML.

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return fill(element, ...children);
}

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const ICONS = {
  dice: "M4 4h16v16H4zM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01",
  pen: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  drop: "M12 4v11M7.5 10.5L12 15l4.5-4.5M4 19h16",
  pin: "M12 21v-6M8 4h8l-1 6 3 3v2H6v-2l3-3z",
  play: "M7 5l12 7-12 7z",
  pause: "M8 5v14M16 5v14",
  centre: "M12 4v4M12 16v4M4 12h4M16 12h4M12 11a1 1 0 100 2 1 1 0 000-2",
  code: "M9 7l-5 5 5 5M15 7l5 5-5 5",
  save: "M12 4v11M7.5 10.5L12 15l4.5-4.5M5 20h14",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 12h16",
  half: "M12 4a8 8 0 100 16V4zM12 4a8 8 0 010 16",
  point: "M5 4l14 7-6 2-2 6z",
  hand: "M12 3v18M3 12h18M12 3l-2.500 2.500M12 3l2.500 2.500M12 21l-2.500-2.500M12 21l2.500-2.500M3 12l2.500-2.500M3 12l2.500 2.500M21 12l-2.500-2.500M21 12l-2.500 2.500",
  lasso: "M12 5c5 0 8 2 8 5s-3 5-8 5-8-2-8-5 3-5 8-5zM7 14.500c-1 1-1 2.500 0 3.500s1 2 0 3",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  close: "M6 6l12 12M18 6L6 18",
  link: "M10 14a4 4 0 006 0l3-3a4 4 0 00-6-6l-1 1M14 10a4 4 0 00-6 0l-3 3a4 4 0 006 6l1-1",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export function button(label, picture, onclick, properties = {}) {
  const shown = properties.bare ? [] : [h("span", {}, label)];
  delete properties.bare;
  return h("button", { type: "button", "aria-label": label, title: label, onclick, ...properties }, icon(picture), ...shown);
}

export function select(label, choices, value, onchange) {
  const options = choices.map(([key, text]) => h("option", { value: key, selected: key === String(value) }, text));
  return h("label", { class: "select" }, h("span", {}, label), h("select", { onchange: (e) => onchange(e.target.value) }, options));
}

export function segmented(label, choices, value, onchange) {
  const group = h("div", { class: "segmented", role: "radiogroup", "aria-label": label });
  const paint = (chosen) => {
    for (const b of group.children) b.setAttribute("aria-checked", String(b.dataset.key === chosen));
  };
  for (const [key, text, picture] of choices) {
    const b = h("button", { type: "button", role: "radio", title: text, "aria-label": text }, picture ? icon(picture) : text);
    b.dataset.key = key;
    b.addEventListener("click", () => {
      paint(key);
      onchange(key);
    });
    group.append(b);
  }
  paint(value);
  return group;
}

export function checkbox(label, value, onchange, properties = {}) {
  return h("label", { class: "check", ...properties }, h("input", { type: "checkbox", checked: value, onchange: (e) => onchange(e.target.checked) }), h("span", {}, label));
}

export function empty(...text) {
  return h("p", { class: "empty" }, ...text);
}

export function debounce(wait, run) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...given), wait);
  };
}

export function fixed(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value.toFixed(digits).replace("-", "−");
}

export function thousands(value) {
  return value.toLocaleString("en-GB");
}

export function amount(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2).replace("-", "−");
  return Number(value.toPrecision(5)).toLocaleString("en-GB", { maximumSignificantDigits: 5 }).replace("-", "−");
}

export function download(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export function toast(text) {
  let place = document.querySelector(".toasts");
  if (!place) document.body.append((place = h("div", { class: "toasts", role: "status", "aria-live": "polite" })));
  const note = h("div", { class: "toast" }, text);
  place.replaceChildren(note);
  setTimeout(() => note.remove(), 6000);
}
