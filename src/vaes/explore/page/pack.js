// Arrays as vaes/explore/pack.py writes them.

const KINDS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

export function unpack(buffer) {
  const view = new DataView(buffer);
  const length = view.getUint32(4, true);
  const begin = 8 + length;
  const said = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const arrays = {};
  for (const [name, [kind, shape, at]] of Object.entries(said.arrays)) {
    const count = shape.reduce((a, b) => a * b, 1);
    arrays[name] = new KINDS[kind](buffer, begin + at, count);
    arrays[name].shape = shape;
  }
  delete said.arrays;
  return { arrays, said };
}

export async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
