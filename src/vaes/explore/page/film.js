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

// Moves over the steps of a training, there and on: `show` is told where, a whole number where it stands still.
export function overSteps(name, count, show, way, moved = () => {}) {
  let [length, timer, held] = [count, 0, 0];
  const slider = h("input", { type: "range", min: 0, max: count - 1, step: 1, "aria-label": `step of ${name}`, oninput: (e) => (pause(), go(Number(e.target.value)), moved(own.at)) });
  const toggle = h("button", { type: "button", class: "play", "aria-label": `Play or pause ${name}`, title: "Play or pause", onclick: () => (timer ? pause() : play()) });
  const go = (at) => {
    own.at = at;
    slider.value = Math.floor(at);
    show(at);
  };
  const pause = () => {
    cancelAnimationFrame(timer);
    timer = 0;
    toggle.replaceChildren(icon("play"));
    if (own.at % 1) go(Math.floor(own.at));
  };
  const play = () => {
    let last = performance.now();
    if (own.at >= length - 1) own.at = 0;
    const step = (now) => {
      if (!toggle.isConnected) return;
      const next = Math.min(own.at + (now - last) / way, length - 1);
      last = now;
      held = own.at >= length - 1 ? held || now : 0;
      if (!held) go(next);
      else if (now - held > 1500) [own.at, held] = [0, 0];
      timer = requestAnimationFrame(step);
    };
    timer = requestAnimationFrame(step);
    toggle.replaceChildren(icon("pause"));
  };
  const own = {
    at: count - 1,
    parts: [toggle, slider],
    go,
    // More came: who looks at the last looks at the newest.
    grow(now) {
      const follows = !timer && own.at >= length - 1 && now > length;
      length = now;
      slider.max = length - 1;
      for (const part of own.parts) part.hidden = length < 2;
      if (follows) go(length - 1);
    },
  };
  pause();
  own.grow(count);
  return own;
}
