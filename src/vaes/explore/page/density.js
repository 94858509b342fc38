// The density of points in the plane, and the lines that hold a share of them.

const SIDE = 160;

// Points (x, y, x, y, ...) -> a grid of a kernel estimate. The bandwidth is 0.6 of Scott's n^(-1/6) standard deviations,
// because q(z) is many bumps and not one.
export function densityOf(points) {
  const n = points.length / 2;
  const at = [0, 1].map((c) => {
    let [sum, square] = [0, 0];
    for (let i = 0; i < n; i++) {
      sum += points[2 * i + c];
      square += points[2 * i + c] ** 2;
    }
    const mean = sum / n;
    const deviation = Math.sqrt(Math.max(square / n - mean ** 2, 1e-12));
    return { low: mean - 4.5 * deviation, step: (9 * deviation) / (SIDE - 1), deviation };
  });
  let grid = new Float32Array(SIDE * SIDE);
  for (let i = 0; i < n; i++) {
    const [u, v] = [0, 1].map((c) => (points[2 * i + c] - at[c].low) / at[c].step);
    const [x, y] = [Math.floor(u), Math.floor(v)];
    if (x < 0 || y < 0 || x >= SIDE - 1 || y >= SIDE - 1) continue;
    const [fx, fy] = [u - x, v - y];
    grid[y * SIDE + x] += (1 - fx) * (1 - fy);
    grid[y * SIDE + x + 1] += fx * (1 - fy);
    grid[(y + 1) * SIDE + x] += (1 - fx) * fy;
    grid[(y + 1) * SIDE + x + 1] += fx * fy;
  }
  const width = 0.6 * n ** (-1 / 6) * ((SIDE - 1) / 9);
  grid = blurred(blurred(grid, width, 1, SIDE), width, SIDE, 1);
  return { grid, at };
}

function blurred(grid, width, along, across) {
  const reach = Math.ceil(3 * width);
  const kernel = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-0.5 * ((i - reach) / width) ** 2));
  const total = kernel.reduce((a, b) => a + b, 0);
  const out = new Float32Array(grid.length);
  for (let line = 0; line < SIDE; line++) {
    for (let i = 0; i < SIDE; i++) {
      let sum = 0;
      for (let k = -reach; k <= reach; k++) if (i + k >= 0 && i + k < SIDE) sum += kernel[k + reach] * grid[line * across + (i + k) * along];
      out[line * across + i * along] = sum / total;
    }
  }
  return out;
}

// The densities above which a share of the mass lies.
export function levelsOf({ grid }, shares) {
  const sorted = [...grid].sort((a, b) => b - a);
  const total = sorted.reduce((a, b) => a + b, 0);
  return shares.map((share) => {
    let sum = 0;
    for (const value of sorted) if ((sum += value) >= share * total) return value;
    return 0;
  });
}

// Marching squares: pieces of lines [x0, y0, x1, y1] in the plane.
export function contour({ grid, at }, level) {
  const lines = [];
  const place = (x, y) => [at[0].low + x * at[0].step, at[1].low + y * at[1].step];
  for (let y = 0; y < SIDE - 1; y++) {
    for (let x = 0; x < SIDE - 1; x++) {
      const v = [grid[y * SIDE + x], grid[y * SIDE + x + 1], grid[(y + 1) * SIDE + x + 1], grid[(y + 1) * SIDE + x]];
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const cuts = [];
      for (let e = 0; e < 4; e++) {
        const [a, b] = [v[e], v[(e + 1) % 4]];
        if (a > level === b > level) continue;
        const t = (level - a) / (b - a);
        const [p, q] = [corners[e], corners[(e + 1) % 4]];
        cuts.push(place(p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])));
      }
      for (let c = 0; c + 1 < cuts.length; c += 2) lines.push([...cuts[c], ...cuts[c + 1]]);
    }
  }
  return lines;
}
