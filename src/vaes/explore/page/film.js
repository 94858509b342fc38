// Frames that play: forwards and back, with buttons to keep them.

import { h, icon, button, download } from "./dom.js";
import { session } from "./session.js";
import { gifOf } from "./gif.js";
import { sheetOf, pngOf, enlarged } from "./pixels.js";

export function player(name) {
  const screen = h("canvas", { class: "picture big", role: "img", "aria-label": `${name}, moving` });
  let [frames, at, step, timer] = [[], 0, 1, 0];
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const paintFrame = () => {
    const frame = frames[at];
    if (!frame) return;
    if (screen.width !== frame.width || screen.height !== frame.height) Object.assign(screen, { width: frame.width, height: frame.height });
    screen.getContext("2d").drawImage(frame, 0, 0);
    slider.value = at;
  };
  const slider = h("input", { type: "range", min: 0, max: 0, step: 1, "aria-label": `frame of ${name}`, oninput: (e) => (pause(), (at = Number(e.target.value)), paintFrame()) });
  const toggle = h("button", { type: "button", class: "play", "aria-label": "Play or pause", title: "Play or pause", onclick: () => (timer ? pause() : play()) });
  const pause = () => {
    clearInterval(timer);
    timer = 0;
    toggle.replaceChildren(icon("play"));
  };
  const play = () => {
    clearInterval(timer);
    timer = setInterval(() => {
      if (!screen.isConnected) return pause();
      if (frames.length < 2) return;
      if (at + step < 0 || at + step >= frames.length) step = -step;
      at += step;
      paintFrame();
    }, 80);
    toggle.replaceChildren(icon("pause"));
  };
  pause();
  const there = () => [...frames, ...frames.slice(1, -1).reverse()].map((frame) => enlarged(frame, 192));
  const element = h(
    "div",
    { class: "player" },
    screen,
    h("div", { class: "bar" }, toggle, slider),
    h("div", { class: "bar keep" }, button("GIF", "film", () => download(`${name}.gif`, gifOf(there(), session.info.shape[0] === 1))), button("PNG", "save", async () => download(`${name}.png`, await pngOf(sheetOf(frames, frames.length, 2, 2))))),
  );
  return {
    element,
    show(given) {
      const first = !frames.length;
      frames = given;
      at = Math.min(at, frames.length - 1);
      slider.max = frames.length - 1;
      paintFrame();
      if (first && !still) play();
    },
  };
}
