// Bytes (C, H, W) as they come from a decoder -> canvases.

import { h } from "./dom.js";

export function imageData(pixels, [channels, height, width], at = 0) {
  const data = new ImageData(width, height);
  const area = height * width;
  const from = at * channels * area;
  for (let i = 0; i < area; i++) {
    const r = pixels[from + i];
    data.data[4 * i] = r;
    data.data[4 * i + 1] = channels === 3 ? pixels[from + area + i] : r;
    data.data[4 * i + 2] = channels === 3 ? pixels[from + 2 * area + i] : r;
    data.data[4 * i + 3] = 255;
  }
  return data;
}

export function picture(pixels, shape, at = 0, properties = {}) {
  const canvas = h("canvas", { class: "picture", ...(properties["aria-label"] ? { role: "img" } : { "aria-hidden": "true" }), ...properties });
  paint(canvas, pixels, shape, at);
  return canvas;
}

export function paint(canvas, pixels, shape, at = 0) {
  const data = imageData(pixels, shape, at);
  if (canvas.width !== data.width || canvas.height !== data.height) {
    canvas.width = data.width;
    canvas.height = data.height;
  }
  canvas.getContext("2d").putImageData(data, 0, 0);
}

// The absolute difference of two pictures, mean over channels, black to bright.
export function errorPicture(a, b, [channels, height, width], atA = 0, atB = 0, properties = {}) {
  const area = height * width;
  const map = new Uint8Array(3 * area);
  for (let i = 0; i < area; i++) {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += Math.abs(a[(atA * channels + c) * area + i] - b[(atB * channels + c) * area + i]);
    const t = Math.min(1, sum / channels / 128);
    map[i] = Math.round(255 * Math.min(1, t * 1.7));
    map[area + i] = Math.round(255 * Math.max(0, Math.min(1, t * 1.9 - 0.6)));
    map[2 * area + i] = Math.round(255 * Math.max(0, t * 1.6 - 1));
  }
  return picture(map, [3, height, width], 0, properties);
}

// Canvases in a row or a grid as one canvas, enlarged without smoothing.
export function sheetOf(canvases, columns, gap = 1, scale = 1) {
  const [w, hgt] = [canvases[0].width * scale, canvases[0].height * scale];
  const rows = Math.ceil(canvases.length / columns);
  const sheet = h("canvas", { width: columns * (w + gap) - gap, height: rows * (hgt + gap) - gap });
  const pen = sheet.getContext("2d");
  pen.imageSmoothingEnabled = false;
  canvases.forEach((canvas, i) => pen.drawImage(canvas, (i % columns) * (w + gap), Math.floor(i / columns) * (hgt + gap), w, hgt));
  return sheet;
}

export function enlarged(canvas, least = 256) {
  return sheetOf([canvas], 1, 0, Math.max(1, Math.floor(least / Math.max(canvas.width, canvas.height))));
}

export function pngOf(canvas) {
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
