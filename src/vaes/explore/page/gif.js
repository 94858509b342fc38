// A GIF of frames, looped: 256 greys, or 6 x 7 x 6 colours with ordered dither.

const BAYER = [0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5].map((v) => (v + 0.5) / 16 - 0.5);
const PARTS = [6, 7, 6];

export function gifOf(frames, grey, delay = 8) {
  const { width, height } = frames[0];
  const bytes = [];
  const word = (v) => bytes.push(v & 255, v >> 8);
  const text = (s) => [...s].forEach((c) => bytes.push(c.charCodeAt(0)));
  text("GIF89a");
  word(width);
  word(height);
  bytes.push(0xf7, 0, 0);
  for (let i = 0; i < 256; i++) bytes.push(...(grey ? [i, i, i] : colourOf(i)));
  text("\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00");
  for (const frame of frames) {
    bytes.push(0x21, 0xf9, 4, 0);
    word(delay);
    bytes.push(0, 0, 0x2c);
    [0, 0, width, height].forEach(word);
    bytes.push(0, 8);
    const packed = squeezed(indices(frame, grey));
    for (let at = 0; at < packed.length; at += 255) {
      const part = packed.slice(at, at + 255);
      bytes.push(part.length);
      for (const b of part) bytes.push(b);
    }
    bytes.push(0);
  }
  bytes.push(0x3b);
  return new Blob([Uint8Array.from(bytes)], { type: "image/gif" });
}

function colourOf(i) {
  const [r, g, b] = [Math.floor(i / 42), Math.floor(i / 6) % 7, i % 6];
  return [(r / 5) * 255, (g / 6) * 255, (b / 5) * 255].map((v) => Math.min(255, Math.round(v)));
}

function indices(frame, grey) {
  const { data } = frame.getContext("2d").getImageData(0, 0, frame.width, frame.height);
  const out = new Uint8Array(frame.width * frame.height);
  for (let i = 0; i < out.length; i++) {
    if (grey) {
      out[i] = data[4 * i];
      continue;
    }
    const nudge = BAYER[(Math.floor(i / frame.width) % 4) * 4 + ((i % frame.width) % 4)];
    const [r, g, b] = PARTS.map((n, c) => Math.max(0, Math.min(n - 1, Math.round((data[4 * i + c] / 255) * (n - 1) + nudge))));
    out[i] = r * 42 + g * 6 + b;
  }
  return out;
}

// Lempel, Ziv and Welch's code with words that grow from 9 to 12 bits.
function squeezed(values) {
  const out = [];
  let [held, bits, size] = [0, 0, 9];
  const put = (code) => {
    held |= code << bits;
    bits += size;
    while (bits >= 8) {
      out.push(held & 255);
      held >>= 8;
      bits -= 8;
    }
  };
  let [table, next] = [new Map(), 258];
  put(256);
  let prefix = values[0];
  for (let i = 1; i < values.length; i++) {
    const key = prefix * 256 + values[i];
    if (table.has(key)) {
      prefix = table.get(key);
      continue;
    }
    put(prefix);
    if (next === 4096) {
      put(256);
      [table, next, size] = [new Map(), 258, 9];
    } else {
      if (next === 1 << size && size < 12) size += 1;
      table.set(key, next++);
    }
    prefix = values[i];
  }
  put(prefix);
  put(257);
  if (bits) out.push(held & 255);
  return out;
}
