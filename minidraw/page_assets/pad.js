/* From strokes to an image: what a hand draws, as the network is used to seeing it. */
"use strict";

const pad = (() => {
  const PEN = 1.15; // half the width of a line in MNIST, in its pixels

  /** How far the point (x, y) is from the line from a to b. */
  function distance(x, y, a, b) {
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    const along = dx || dy ? ((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy) : 0;
    const s = Math.min(Math.max(along, 0), 1);
    return Math.hypot(x - a[0] - s * dx, y - a[1] - s * dy);
  }

  /** Strokes in pixels drawn with a round pen of this radius: (channels * B * A) in [0, 1]. */
  function render(strokes, radius, { A, B, channels }) {
    const image = new Float64Array(channels * B * A);
    for (const { points, color } of strokes)
      for (let b = 0; b < B; b++)
        for (let a = 0; a < A; a++) {
          let nearest = Infinity;
          for (let k = 0; k < points.length; k++)
            nearest = Math.min(nearest, distance(a, b, points[Math.max(k - 1, 0)], points[k]));
          const ink = Math.min(Math.max(radius + 0.5 - nearest, 0), 1);
          for (let c = 0; c < channels; c++) {
            const k = (c * B + b) * A + a;
            image[k] += ink * ((channels === 1 ? 1 : color[c]) - image[k]);
          }
        }
    return image;
  }

  const moved = (strokes, move) => strokes.map((stroke) => ({ ...stroke, points: stroke.points.map(move) }));

  /** As MNIST was made: scaled into a box of 20 by 20 pixels, then centred by its mass in 28 by 28. */
  function likeMnist(strokes, config) {
    const points = strokes.flatMap((stroke) => stroke.points);
    const [low, high] = [Math.min, Math.max].map((f) => [0, 1].map((k) => f(...points.map((point) => point[k]))));
    const side = Math.max(high[0] - low[0], high[1] - low[1]);
    const scale = side > 0.02 ? (20 - 2 * PEN) / side : 28; // a dot stays a dot
    let shift = [0, 1].map((k) => 13.5 - (scale * (low[k] + high[k])) / 2);
    const drawn = () => render(moved(strokes, (p) => p.map((v, k) => scale * v + shift[k])), PEN, config);
    const image = drawn();
    const mass = [0, 0, 0];
    image.forEach((ink, k) => [k % 28, Math.floor(k / 28), 1].forEach((v, j) => (mass[j] += ink * v)));
    shift = shift.map((v, k) => v + 13.5 - mass[k] / mass[2]);
    return drawn();
  }

  /** The image (channels * B * A) of strokes whose points lie in [0, 1] by [0, B / A]: zeros and ones if `binary`. */
  function image(strokes, config, binary) {
    const { A, B, channels } = config;
    const inked = strokes.filter((stroke) => stroke.points.length);
    if (!inked.length) return new Float64Array(channels * B * A);
    const grey = A === 28 && B === 28 && channels === 1
      ? likeMnist(inked, config)
      : render(moved(inked, (p) => p.map((v) => A * v - 0.5)), Math.max((PEN * A) / 28, 0.5), config);
    return binary ? grey.map((v) => (v > 0.5 ? 1 : 0)) : grey;
  }

  return { image };
})();

if (typeof module !== "undefined") module.exports = pad;
