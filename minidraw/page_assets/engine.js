/* DRAW in plain JavaScript: the model's forward pass, and the window's backward.

A second witness: on the same parameters, images and noise it gives the numbers of minidraw's NumPy, in double
precision. One image at a time. Letters and equation numbers are the tutorial's; whole numbers are the paper's (Gregor
et al. 2015). Matrices are Float64Arrays, row by row; shapes stand behind them in parentheses. */
"use strict";

const minidraw = (() => {
  // Matrices

  /** The product of a (n, m) and b (m, k): (n, k). Four rows of b at a time, so that y is passed over less often: it
  halves the time of a drawing. The last loop is the plain form. */
  function matmul(a, b, n, m, k) {
    const y = new Float64Array(n * k);
    for (let i = 0; i < n; i++) {
      const y_i = y.subarray(i * k, (i + 1) * k);
      let l = 0;
      for (; l + 4 <= m; l += 4) {
        const [a_0, a_1, a_2, a_3] = a.subarray(i * m + l, i * m + l + 4);
        const b_0 = l * k, b_1 = b_0 + k, b_2 = b_1 + k, b_3 = b_2 + k;
        for (let j = 0; j < k; j++) y_i[j] += a_0 * b[b_0 + j] + a_1 * b[b_1 + j] + a_2 * b[b_2 + j] + a_3 * b[b_3 + j];
      }
      for (; l < m; l++) for (let j = 0; j < k; j++) y_i[j] += a[i * m + l] * b[l * k + j];
    }
    return y;
  }

  /** a (n, m) transposed: (m, n). */
  function transposed(a, n, m) {
    const y = new Float64Array(m * n);
    for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) y[j * n + i] = a[i * m + j];
    return y;
  }

  /** Arrays one after the other. */
  function concat(...parts) {
    const y = new Float64Array(parts.reduce((length, part) => length + part.length, 0));
    let start = 0;
    for (const part of parts) {
      y.set(part, start);
      start += part.length;
    }
    return y;
  }

  const add = (a, b) => a.map((a_k, k) => a_k + b[k]);
  const subtract = (a, b) => a.map((a_k, k) => a_k - b[k]);
  const sum = (a) => a.reduce((total, a_k) => total + a_k, 0);

  // The ops of chapters 3 to 9

  const logistic = (a) => 1 / (1 + Math.exp(-a));

  /** y = x W + b, (3.4): x (X), W (X, Y), b (Y). */
  const affine = (x, W, b) => add(matmul(x, W, 1, x.length, b.length), b);

  /** From the pre-activations a (4 H), in the order i, f, o, g, and the memory cell (H): [h, cell_new]. */
  function lstm(a, cell) {
    const H = cell.length, h = new Float64Array(H), cell_new = new Float64Array(H);
    for (let k = 0; k < H; k++) {
      const i = logistic(a[k]), f = logistic(a[H + k]), o = logistic(a[2 * H + k]); // (5.2)
      const g = Math.tanh(a[3 * H + k]); // (5.2)
      cell_new[k] = f * cell[k] + i * g; // (5.3)
      h[k] = o * Math.tanh(cell_new[k]); // (5.4)
    }
    return [h, cell_new];
  }

  /** z = mu + sigma * noise, all (Z). */
  const sample = (mu, log_sigma, noise) => mu.map((mu_k, k) => mu_k + Math.exp(log_sigma[k]) * noise[k]); // (6.8)

  /** KL(N(mu, sigma^2) || N(0, I)) in nats. */
  const kl = (mu, log_sigma) =>
    0.5 * sum(mu.map((mu_k, k) => mu_k * mu_k + Math.exp(2 * log_sigma[k]) - 2 * log_sigma[k] - 1)); // (6.6)

  /** log(1 + e^c), finite for every c. */
  const softplus = (c) => Math.max(c, 0) + Math.log1p(Math.exp(-Math.abs(c))); // (4.5)

  /** -log D(x | c) in nats, of logits c and image x (pixels). */
  const bernoulli = (c, x) => sum(c.map((c_k, k) => softplus(c_k) - x[k] * c_k)); // (4.4)

  /** x_hat: what the canvas c lacks of the image x (pixels). */
  const error_image = (x, c) => x.map((x_k, k) => x_k - logistic(c[k])); // (9.1)

  // The window, chapter 10. Its sizes are { N, A, B }: filters each way, width and height of the image in pixels.

  /** Where the window p (5) lies: its middle g [x, y] in pixels counted from 0, sigma2, delta, gamma. */
  function window(p, { N, A, B }) {
    const g = [A, B].map((size, k) => (size - 1) / 2 + ((size + 1) / 2) * p[k]); // (10.1)
    const [sigma2, delta, gamma] = [p[2], p[3], p[4]].map(Math.exp);
    return { g, sigma2, delta: ((Math.max(A, B) - 1) / (N - 1)) * delta, gamma }; // (10.2)
  }

  /** The filters F_x (N, A), F_y (N, B) of a window p (5), their means, gamma, and the backward.

  With `fault` the offsets are the paper's i - N/2 - 0.5, which counts from 1, used with filters counted from 0. */
  function filterbank(p, { N, A, B }, fault = false) {
    const { g, sigma2, delta, gamma } = window(p, { N, A, B });
    const offset = Float64Array.from({ length: N }, (_, i) => (fault ? i - N / 2 - 0.5 : i - (N - 1) / 2));
    const sides = [A, B].map((size, k) => {
      const mu = offset.map((offset_i) => g[k] + offset_i * delta); // (10.3)
      const F = new Float64Array(N * size);
      for (let i = 0; i < N; i++) {
        const nearest = Math.min(Math.max(Math.round(mu[i]), 0), size - 1);
        const row = F.subarray(i * size, (i + 1) * size);
        for (let a = 0; a < size; a++)
          row[a] = Math.exp(((nearest - mu[i]) ** 2 - (a - mu[i]) ** 2) / (2 * sigma2)); // (10.5)
        const S = sum(row);
        for (let a = 0; a < size; a++) row[a] /= S; // (10.4)
      }
      return { size, mu, F };
    });

    /** dp (5) from dF_x (N, A), dF_y (N, B) and dgamma. */
    function backward(dF_x, dF_y, dgamma) {
      const dp = new Float64Array(5);
      sides.forEach(({ size, mu, F }, k) => {
        const dF = [dF_x, dF_y][k];
        for (let i = 0; i < N; i++) {
          const mean = (u) => { // under the row i of F
            let total = 0;
            for (let a = 0; a < size; a++) total += F[i * size + a] * u(a);
            return total;
          };
          const d = (a) => dF[i * size + a];
          const cov = (w) => mean((a) => d(a) * w(a)) - mean(d) * mean(w); // (10.6)
          const dmu = cov((a) => a) / sigma2; // (10.9)
          dp[k] += ((size + 1) / 2) * dmu; // (10.11)
          dp[2] += cov((a) => a * a) / (2 * sigma2) - mu[i] * dmu; // (10.10)
          dp[3] += dmu * offset[i] * delta; // (10.12)
        }
      });
      dp[4] = dgamma * gamma; // (10.13)
      return dp;
    }

    return { F_x: sides[0].F, F_y: sides[1].F, mu_x: sides[0].mu, mu_y: sides[1].mu, gamma, backward };
  }

  // Reading and writing, chapter 11

  /** The channels of an image, or of a patch, each of `size` numbers, as views. */
  const channels = (image, size) =>
    Array.from({ length: image.length / size }, (_, k) => image.subarray(k * size, (k + 1) * size));

  /** The glimpse r = gamma F_y x F_x^T of every channel of x (channels * B * A): (channels * N * N); the backward. */
  function read(x, { F_x, F_y, gamma }, { N, A, B }) {
    const F_x_T = transposed(F_x, N, A);
    const parts = channels(x, A * B).map((X) => {
      const rows = matmul(F_y, X, N, B, A);
      return { X, rows, P: matmul(rows, F_x_T, N, A, N) };
    });
    const r = concat(...parts.map(({ P }) => P)).map((P_k) => gamma * P_k); // (11.1)

    /** From dr, of the shape of r. */
    function backward(dr) {
      let dF_x = new Float64Array(N * A), dF_y = new Float64Array(N * B), dgamma = 0;
      channels(dr, N * N).forEach((dr_c, c) => {
        const { X, rows, P } = parts[c];
        const dP = dr_c.map((d) => gamma * d); // (11.5)
        dF_x = add(dF_x, matmul(transposed(dP, N, N), rows, N, N, A)); // (11.7)
        dF_y = add(dF_y, matmul(matmul(dP, F_x, N, N, A), transposed(X, B, A), N, A, B)); // (11.8)
        dgamma += sum(dr_c.map((d, k) => d * P[k])); // (11.5)
      });
      return { dF_x, dF_y, dgamma };
    }

    return { r, backward };
  }

  /** The stroke 1/gamma F_y^T w F_x of every channel of w (channels * N * N): (channels * B * A); the backward. */
  function write(w, { F_x, F_y, gamma }, { N, A, B }) {
    const F_y_T = transposed(F_y, N, B);
    const parts = channels(w.map((w_k) => w_k / gamma), N * N).map((Q) => {
      const rows = matmul(Q, F_x, N, N, A);
      return { Q, rows, stroke: matmul(F_y_T, rows, B, N, A) };
    });
    const stroke = concat(...parts.map((part) => part.stroke)); // (11.2)

    /** From D, of the shape of the stroke. */
    function backward(D) {
      let dF_x = new Float64Array(N * A), dF_y = new Float64Array(N * B), dgamma = 0;
      const dw = channels(D, A * B).map((D_c, c) => {
        const { Q, rows } = parts[c];
        const drows = matmul(F_y, D_c, N, B, A);
        const dQ = matmul(drows, transposed(F_x, N, A), N, A, N); // (11.9)
        dF_x = add(dF_x, matmul(transposed(Q, N, N), drows, N, N, A)); // (11.10)
        dF_y = add(dF_y, matmul(rows, transposed(D_c, B, A), N, A, B)); // (11.10)
        dgamma -= sum(dQ.map((d, k) => d * Q[k])) / gamma; // (11.9)
        return dQ.map((d) => d / gamma); // (11.9)
      });
      return { dw: concat(...dw), dF_x, dF_y, dgamma };
    }

    return { stroke, backward };
  }

  /** What a window p (5) over the image x makes of it, a loss, and the five gradients dp of that loss.

  `loss` is "back", 1/2 |write(read(x)) - x|^2; or "bright", minus the mean of the glimpse. */
  function over(x, p, sizes, loss, fault = false) {
    const filters = filterbank(p, sizes, fault);
    const reading = read(x, filters, sizes);
    const writing = write(reading.r, filters, sizes);
    let L, dr, dF_x, dF_y, dgamma;
    if (loss === "back") {
      const D = subtract(writing.stroke, x);
      L = 0.5 * sum(D.map((d) => d * d));
      ({ dw: dr, dF_x, dF_y, dgamma } = writing.backward(D));
    } else {
      const count = reading.r.length;
      L = -sum(reading.r) / count;
      dr = reading.r.map(() => -1 / count);
      [dF_x, dF_y, dgamma] = [filters.F_x.map(() => 0), filters.F_y.map(() => 0), 0];
    }
    const through = reading.backward(dr); // the filters are used twice: their gradients are added
    const dp = filters.backward(add(dF_x, through.dF_x), add(dF_y, through.dF_y), dgamma + through.dgamma);
    return { filters, r: reading.r, back: writing.stroke, L, dp };
  }

  // The model

  /** The paper's loop. `config` and the names of `parameters` are those of minidraw's Config. */
  class Draw {
    constructor(config, parameters) {
      const { A, B } = config;
      this.config = config;
      this.parameters = parameters;
      this.reading = config.read_N && { N: config.read_N, A, B };
      this.writing = config.write_N && { N: config.write_N, A, B };
    }

    /** Look at x (pixels) and draw it: what every step leaves behind, one for each array (Z) in `noise`. */
    *infer(x, noise) {
      let { c, h_enc, cell_enc, h_dec, cell_dec } = this.start();
      for (const noise_t of noise) {
        const x_hat = error_image(x, c); // (3)
        const seen = this.read(x, x_hat, h_dec); // (4)
        [h_enc, cell_enc] = lstm(this.affine("encoder", seen.r, h_dec, h_enc), cell_enc); // (5)
        const mu = this.affine("mu", h_enc), log_sigma = this.affine("sigma", h_enc); // (1), (2)
        const z = sample(mu, log_sigma, noise_t); // (6)
        [h_dec, cell_dec] = lstm(this.affine("decoder", z, h_dec), cell_dec); // (7)
        const written = this.write(h_dec);
        c = add(c, written.stroke); // (8)
        const nats = { L_z: kl(mu, log_sigma), L_x: bernoulli(c, x) }; // (10), of this step; (9), of the canvas so far
        yield { ...seen, h_enc, cell_enc, mu, log_sigma, z, h_dec, cell_dec, ...written, c, ...nats };
      }
    }

    /** Draw from the prior: every step, from the arrays z (Z) of N(0, 1), (13); or go on after the step `from`. */
    *generate(z, from = this.start()) {
      let { c, h_dec, cell_dec } = from;
      for (const z_t of z) {
        [h_dec, cell_dec] = lstm(this.affine("decoder", z_t, h_dec), cell_dec); // (14)
        const written = this.write(h_dec);
        c = add(c, written.stroke); // (15)
        yield { z: z_t, h_dec, cell_dec, ...written, c };
      }
    }

    /** The map L of that name, of its inputs side by side. */
    affine(name, ...inputs) {
      return affine(concat(...inputs), this.parameters[`${name}/w`], this.parameters[`${name}/b`]);
    }

    /** The states before the first step: learned, or zero. */
    start() {
      const { A, B, channels, enc_size, dec_size, learned_start } = this.config;
      const sizes = { c: channels * B * A, h_enc: enc_size, cell_enc: enc_size, h_dec: dec_size, cell_dec: dec_size };
      const states = {};
      for (const [name, size] of Object.entries(sizes))
        states[name] = learned_start ? this.parameters[`start/${name}`] : new Float64Array(size);
      return states;
    }

    /** (27): the glimpse r of x and x_hat, and the window it is read through. Or (17), and no window. */
    read(x, x_hat, h_dec) {
      if (!this.reading) return { r: concat(x, x_hat), read_window: null };
      const read_window = this.affine("read", h_dec); // (21)
      const filters = filterbank(read_window, this.reading);
      const r = concat(read(x, filters, this.reading).r, read(x_hat, filters, this.reading).r); // (27)
      return { r, read_window };
    }

    /** (29): what is added to the canvas, the patch w, and the window it is written through. Or (18), and neither. */
    write(h_dec) {
      if (!this.writing) return { stroke: this.affine("write", h_dec), w: null, write_window: null }; // (18)
      const w = this.affine("writeW", h_dec), write_window = this.affine("write", h_dec); // (28), (21)
      const { stroke } = write(w, filterbank(write_window, this.writing), this.writing); // (29)
      return { stroke, w, write_window };
    }
  }

  // What the page is made from

  /** The numbers in float16, two bytes each and the lower first, as a Float64Array. */
  function float16(bytes) {
    const powers = Array.from({ length: 32 }, (_, e) => 2 ** (e - 25)); // 2^-10 of the power: the fraction has 10 bits
    const y = new Float64Array(bytes.length / 2);
    for (let k = 0; k < y.length; k++) {
      const bits = bytes[2 * k] + 256 * bytes[2 * k + 1];
      const e = (bits >> 10) & 31, fraction = bits & 1023;
      const size = e ? (1024 + fraction) * powers[e] : fraction * powers[1]; // without a power: subnormal
      y[k] = bits >> 15 ? -size : size;
    }
    return y;
  }

  /** The bytes of a base64 text. */
  function unpacked(text) {
    const letters = atob(text), bytes = new Uint8Array(letters.length);
    for (let k = 0; k < bytes.length; k++) bytes[k] = letters.charCodeAt(k);
    return bytes;
  }

  /** The Draw in the data of a page, as page.py packed it. */
  function load({ config, shapes, parameters }) {
    const numbers = float16(unpacked(parameters)), named = {};
    let start = 0;
    for (const [name, shape] of Object.entries(shapes)) {
      const stop = start + shape.reduce((size, side) => size * side, 1);
      named[name] = numbers.subarray(start, stop);
      start = stop;
    }
    return new Draw(config, named);
  }

  /** `steps` arrays (size) of noise from N(0, 1); one seed gives one result. Xorshift, then Box and Muller. */
  function gaussians(seed, steps, size) {
    let state = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) >>> 0 || 1;
    const uniform = () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return ((state >>> 0) + 0.5) / 2 ** 32; // never 0, never 1
    };
    for (let k = 0; k < 8; k++) uniform(); // neighbouring seeds part
    const gaussian = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    return Array.from({ length: steps }, () => Float64Array.from({ length: size }, gaussian));
  }

  return { Draw, load, unpacked, float16, gaussians, logistic, bernoulli, window, filterbank, read, write, over };
})();

if (typeof module !== "undefined") module.exports = minidraw;
