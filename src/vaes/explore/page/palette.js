// Colours that people with any colour vision tell apart.

// Petroff, Accessible Color Sequences for Data Visualization, 2021, the sequence of ten.
const TEN = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"];
// Of the map viridis, which rises evenly in lightness.
const RAMP = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725"];

function parse(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function turned(k) {
  const hue = (k * 137.508) % 360;
  const light = 0.5 + 0.12 * ((k % 3) - 1);
  const part = (n) => {
    const at = (n + hue / 30) % 12;
    return Math.round(255 * (light - 0.62 * Math.min(light, 1 - light) * Math.max(-1, Math.min(at - 3, 9 - at, 1))));
  };
  return [part(0), part(8), part(4)];
}

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// Lifted where the ground is dark: that of the page, or the decoded pictures of the map.
export function classColour(k, count, lifted = isDark()) {
  const base = count <= TEN.length ? parse(TEN[k % TEN.length]) : turned(k);
  return lifted ? base.map((v) => Math.round(v + (255 - v) * 0.25)) : base;
}

export function ramp(t) {
  const at = Math.min(Math.max(t, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  const [a, b] = [parse(RAMP[low]), parse(RAMP[low + 1])];
  return a.map((v, i) => Math.round(v + (b[i] - v) * (at - low)));
}

export function css([r, g, b], alpha = 1) {
  return alpha === 1 ? `rgb(${r} ${g} ${b})` : `rgb(${r} ${g} ${b} / ${alpha})`;
}

export function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
