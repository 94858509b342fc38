// What decodes: the server with the model itself, or the report's own network. Both answer the same questions.

import { unpack, inflate } from "./pack.js";
import { state } from "./store.js";

class Answered extends Error {}

async function answer(response) {
  if (response.ok) return response;
  let text = `the server answered ${response.status}`;
  try {
    text = (await response.json()).error || text;
  } catch {
    /* it was no JSON, and the status is all there is to say */
  }
  throw new Answered(text);
}

class Server {
  live = true;
  server = true;
  encodes = true;

  // A run's address; of the checkpoint that was chosen, where it is the run that is looked at.
  of(run, path) {
    const chosen = run === state.run && state.checkpoint;
    return `${run}/${path}${chosen ? `${path.includes("?") ? "&" : "?"}checkpoint=${encodeURIComponent(state.checkpoint)}` : ""}`;
  }

  async get(path) {
    try {
      return await answer(await fetch(`api/${path}`));
    } catch (error) {
      throw error instanceof Answered ? error : new Error("the server does not answer: is vaes explore still running?");
    }
  }

  async post(path, body) {
    try {
      return await answer(await fetch(`api/${path}`, { method: "POST", body }));
    } catch (error) {
      throw error instanceof Answered ? error : new Error("the server does not answer: is vaes explore still running?");
    }
  }

  async runs() {
    return (await this.get("runs")).json();
  }

  async info(run) {
    return (await this.get(this.of(run, "info"))).json();
  }

  async progress(run) {
    return (await this.get(this.of(run, "progress"))).json();
  }

  async columns(run) {
    return unpack(await (await this.get(this.of(run, "columns"))).arrayBuffer()).arrays;
  }

  async umap(run) {
    return unpack(await (await this.get(this.of(run, "umap"))).arrayBuffer());
  }

  async decode(run, codes) {
    return new Uint8Array(await (await this.post(this.of(run, "decode"), codes)).arrayBuffer());
  }

  async encode(run, blob) {
    const { arrays, said } = unpack(await (await this.post(this.of(run, "encode"), blob)).arrayBuffer());
    return { pixels: arrays.pixels, code: arrays.codes, said };
  }

  async images(run, at) {
    const parts = [];
    for (let i = 0; i < at.length; i += 512) {
      const response = await this.get(this.of(run, `images?at=${at.slice(i, i + 512).join(",")}`));
      parts.push(new Uint8Array(await response.arrayBuffer()));
    }
    const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
    parts.reduce((n, part) => (all.set(part, n), n + part.length), 0);
    return all;
  }

  async neighbours(run, pixels) {
    const { arrays, said } = unpack(await (await this.post(this.of(run, "neighbours"), pixels)).arrayBuffer());
    return { pixels: arrays.pixels, ...said, of: "training images" };
  }

  async reload(run) {
    return (await this.post(this.of(run, "reload"))).json();
  }

  async frame(run, step) {
    return (await this.get(this.of(run, `frame/${step}`))).blob();
  }

  async plane(run, step) {
    return unpack(await (await this.get(this.of(run, `plane/${step}`))).arrayBuffer());
  }
}

// In a notebook: what is asked of the server goes through the frame that the page stands in.
class Widget extends Server {
  constructor(ask) {
    super();
    this.ask = ask;
  }

  async get(path) {
    return answer(responseOf(await this.ask(path, "GET")));
  }

  async post(path, body) {
    return answer(responseOf(await this.ask(path, "POST", body)));
  }
}

function responseOf({ status, body }) {
  return new Response(body, { status });
}

class Report {
  server = false;
  queue = Promise.resolve();

  async open() {
    const text = (id) => document.getElementById(`vaes-${id}`)?.textContent;
    this.said = JSON.parse(text("info"));
    this.live = Boolean(text("runtime"));
    if (this.live) this.engine = this.start(text);
    this.held = await Promise.all(this.said.runs.map((info, run) => this.take(run, info, (id) => text(`${run}-${id}`))));
    return this;
  }

  // What the file holds of one run.
  async take(run, info, text) {
    const { arrays } = unpack(await inflate(text("arrays")));
    const place = new Map([...(arrays.index || [])].map((where, row) => [where, row]));
    return { info, arrays, place, text, encodes: Boolean(text("encoder")), sessions: {} };
  }

  get encodes() {
    return this.held[state.run].encodes;
  }

  async start(text) {
    const module = new Blob([await inflate(text("runtime"))], { type: "text/javascript" });
    const ort = await import(URL.createObjectURL(module));
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = await inflate(text("wasm"));
    return ort;
  }

  // One session answers one question at a time; each is opened when it is first asked.
  async ask(run, part, values, shape) {
    const { sessions, text } = this.held[run];
    const ort = await this.engine;
    const turn = this.queue.then(async () => {
      sessions[part] ??= await ort.InferenceSession.create(new Uint8Array(await inflate(text(part))), { executionProviders: ["wasm"] });
      const session = sessions[part];
      const result = await session.run({ [session.inputNames[0]]: new ort.Tensor("float32", values, shape) });
      return result[session.outputNames[0]].data;
    });
    this.queue = turn.catch(() => {});
    return turn;
  }

  async runs() {
    return { version: this.said.version, runs: this.said.runs.map(({ name }) => ({ name, error: null })), live: this.live };
  }

  async info(run) {
    return this.held[run].info;
  }

  async progress() {
    return null;
  }

  async columns(run) {
    return this.held[run].arrays;
  }

  async decode(run, codes) {
    const { info, arrays } = this.held[run];
    if (!this.live) return nearestStored(info, arrays, codes);
    const y = await this.ask(run, "decoder", codes, [codes.length / info.z_dim, ...info.z_shape]);
    const pixels = new Uint8Array(y.length);
    for (let i = 0; i < y.length; i++) pixels[i] = toByte(y[i], info.range);
    return pixels;
  }

  async encode(run, blob) {
    const { info, encodes } = this.held[run];
    if (!encodes) throw new Error("this report holds no encoder: vaes explore takes pictures of your own");
    const { shape, range } = info;
    const pixels = await fitted(blob, shape);
    const x = Float32Array.from(pixels, (v) => (v / 255) * (range[1] - range[0]) + range[0]);
    return { pixels, code: await this.ask(run, "encoder", x, [1, ...shape]), said: null };
  }

  async images(run, at) {
    const { info, arrays, place } = this.held[run];
    const size = info.shape.reduce((a, b) => a * b, 1);
    const all = new Uint8Array(at.length * size);
    at.forEach((where, i) => {
      const row = place.get(where);
      all.set(arrays.pixels.subarray(row * size, (row + 1) * size), i * size);
    });
    return all;
  }

  async neighbours(run, pixels) {
    const kept = this.held[run].arrays.pixels;
    const size = pixels.length;
    const count = kept.length / size;
    const errors = Array.from({ length: count }, (_, row) => {
      let sum = 0;
      for (let i = 0; i < size; i++) sum += (kept[row * size + i] - pixels[i]) ** 2;
      return [sum / size / 65025, row];
    });
    const best = errors.sort((a, b) => a[0] - b[0]).slice(0, 12);
    const found = new Uint8Array(best.length * size);
    best.forEach(([, row], i) => found.set(kept.subarray(row * size, (row + 1) * size), i * size));
    return { pixels: found, mse: best.map((b) => b[0]), among: count, of: "test images in this file" };
  }

  async frame(run, step) {
    const bytes = await inflate(this.held[run].text(`film-${step}`));
    return new Blob([bytes], { type: "image/png" });
  }

  async plane(run, step) {
    return unpack(await inflate(this.held[run].text(`planes-${step}`)));
  }
}

// Without a decoder: the pictures of the nearest codes that were decoded when the file was written.
function nearestStored({ z_dim: dim, shape }, arrays, codes) {
  const size = shape.reduce((a, b) => a * b, 1);
  const kept = [["gridcodes", "grid"], ["codes", "again"], ["prior", "draws"]].filter(([, pictures]) => arrays[pictures]);
  const pixels = new Uint8Array((codes.length / dim) * size);
  for (let k = 0; k < codes.length / dim; k++) {
    let [best, from, at] = [Infinity, null, 0];
    for (const [names, pictures] of kept) {
      for (let row = 0; row < arrays[names].shape[0]; row++) {
        let sum = 0;
        for (let d = 0; d < dim; d++) sum += (arrays[names][row * dim + d] - codes[k * dim + d]) ** 2;
        if (sum < best) [best, from, at] = [sum, pictures, row];
      }
    }
    if (from) pixels.set(arrays[from].subarray(at * size, (at + 1) * size), k * size);
  }
  return pixels;
}

// Rounded half to even, as torch does.
function toByte(value, [low, high]) {
  const v = ((value - low) / (high - low)) * 255;
  const down = Math.floor(v);
  const rounded = v - down === 0.5 ? down + (down % 2) : Math.round(v);
  return rounded < 0 ? 0 : rounded > 255 ? 255 : rounded;
}

async function fitted(blob, [channels, height, width]) {
  const picture = await createImageBitmap(blob).catch(() => {
    throw new Error("the picture cannot be read");
  });
  const scale = Math.min(picture.width / width, picture.height / height);
  const [w, h] = [width * scale, height * scale];
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, (picture.width - w) / 2, (picture.height - h) / 2, w, h, 0, 0, width, height);
  const { data } = pen.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(channels * height * width);
  for (let i = 0; i < height * width; i++) {
    const [r, g, b] = data.subarray(4 * i, 4 * i + 3);
    if (channels === 1) pixels[i] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
    else [r, g, b].forEach((v, c) => (pixels[c * height * width + i] = v));
  }
  return pixels;
}

export async function connect() {
  if (document.getElementById("vaes-info")) return new Report().open();
  const ask = window.frameElement?.vaesAsk;
  return ask ? new Widget(ask) : new Server();
}
