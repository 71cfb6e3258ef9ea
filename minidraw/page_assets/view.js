/* What the page shows. Every number comes from engine.js; here it is only drawn, spoken and kept in the address. */
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const model = minidraw.load(data);
  const { config } = model;
  const { T, A, B, channels, z_size } = config;
  const pixels = channels * B * A;
  const bytes = minidraw.unpacked(data.images);
  const images = Array.from({ length: bytes.length / pixels }, (_, k) =>
    Float64Array.from(bytes.subarray(k * pixels, (k + 1) * pixels), (v) => v / 255));
  const DREAMS = 12;
  const $ = (id) => document.getElementById(id);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // The state, which is what the address says

  const LOW = [-2.5, -2.5, -3, -3, -2], HIGH = [2.5, 2.5, 5, 0.7, 2]; // of the five numbers of a window
  const FIRST = [0.3, -0.25, 0, -0.9, 0]; // a window that overlaps a digit, but does not fit it
  const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
  const fits = (p) => p.map((v, k) => clamp(v, LOW[k], HIGH[k]));
  const whole = (text, low, high, otherwise) => {
    const n = Number(text);
    return text !== null && text !== "" && Number.isInteger(n) ? clamp(n, low, high) : otherwise;
  };
  const state = {};

  function restore() {
    const said = new URLSearchParams(location.hash.slice(1));
    const say = (name) => said.get(name);
    state.tab = ["look", "window", "dream"].includes(say("tab")) ? say("tab") : "look";
    state.strokes = fromText(say("strokes") || "");
    state.digit = whole(say("digit"), 0, images.length - 1, Math.min(2, images.length - 1));
    state.seed = whole(say("seed"), 0, 999999, 1);
    state.t = whole(say("t"), 0, T, T);
    const p = (say("p") || "").split(",").map(Number);
    state.p = p.length === 5 && p.every(Number.isFinite) ? fits(p) : [...FIRST];
    state.N = whole(say("N"), 2, 12, clamp(config.write_N || 5, 2, 12));
    state.loss = say("loss") === "bright" ? "bright" : "back";
    state.fault = say("fault") === "1";
    state.dream = whole(say("dream"), 1, DREAMS, 1);
    state.to = whole(say("to"), 1, DREAMS, 2);
    state.k = whole(say("k"), 0, T, Math.ceil(T / 5));
    const s = Number(say("s") ?? "x");
    state.s = Number.isFinite(s) ? clamp(s, 0, 1) : 0.5;
  }

  function address() {
    const { tab, seed, t } = state;
    const said = { tab };
    if (tab !== "dream") Object.assign(said, state.strokes.length && tab === "look"
      ? { strokes: asText(state.strokes) } : { digit: state.digit });
    if (tab === "look") Object.assign(said, { t, seed });
    if (tab === "window") {
      const { N, loss, fault } = state;
      Object.assign(said, { p: state.p.map((v) => Number(v.toFixed(3))), N, loss, fault: fault ? 1 : 0 });
    }
    if (tab === "dream") {
      const { dream, to, k, s } = state;
      Object.assign(said, { seed, t, dream, k, to, s });
    }
    return "#" + Object.entries(said).map(([name, value]) => `${name}=${value}`).join("&");
  }

  /** Points as two hexadecimal digits for x and for y, in 255ths of the sheet; in colour the ink comes first. */
  const hex = (v) => Math.round(255 * clamp(v, 0, 1)).toString(16).padStart(2, "0");
  const pointText = ([px, py]) => hex(px) + hex((py * A) / B);
  const asText = (strokes) => strokes.map(({ points, color }) =>
    (channels === 3 ? color.map(hex).join("") : "") + points.map(pointText).join("")).join("-");
  function fromText(text) {
    if (!/^[0-9a-f-]*$/.test(text)) return [];
    const ink = channels === 3 ? 3 : 0;
    return text.split("-").map((part) => {
      const v = (part.match(/../g) || []).map((two) => parseInt(two, 16) / 255);
      const points = [];
      for (let k = ink; k + 1 < v.length; k += 2) points.push([v[k], (v[k + 1] * B) / A]);
      return { points, color: ink ? v.slice(0, 3) : [1, 1, 1] };
    }).filter((stroke) => stroke.points.length);
  }

  let writing = null, speaking = null;
  function remember() {
    clearTimeout(writing);
    writing = setTimeout(() => history.replaceState(null, "", address()), 150);
  }
  /** Spoken once the hand rests, so that dragging does not stammer. */
  function speak(text) {
    clearTimeout(speaking);
    speaking = setTimeout(() => ($("said").textContent = text), 500);
  }

  // Pictures

  const means = (c) => c.map(minidraw.logistic);
  const largest = (a) => a.reduce((most, v) => Math.max(most, Math.abs(v)), 1e-12);
  /** Numbers from 0 up, the largest as white if it is above 1. */
  const bright = (a) => a.map((v) => v / Math.max(largest(a), 1));
  /** Numbers of either sign, zero as mid grey. */
  const signed = (a, most = largest(a)) => a.map((v) => 0.5 + (0.5 * v) / most);

  /** Show an image (channels * height * width) in [0, 1]. */
  function paint(canvas, image, width = A, height = B) {
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const context = canvas.getContext("2d"), shown = context.createImageData(width, height);
    const size = width * height;
    for (let k = 0; k < size; k++) {
      for (let c = 0; c < 3; c++) shown.data[4 * k + c] = 255 * image[channels === 3 ? c * size + k : k];
      shown.data[4 * k + 3] = 255;
    }
    context.putImageData(shown, 0, 0);
  }

  function pictures(parent, list, now = -1) {
    while (parent.children.length < list.length) parent.append(document.createElement("canvas"));
    while (parent.children.length > list.length) parent.lastChild.remove();
    list.forEach((image, k) => {
      paint(parent.children[k], image);
      parent.children[k].classList.toggle("now", k === now);
    });
  }

  const box = (margin) => `${-0.5 - margin} ${-0.5 - margin} ${A + 2 * margin} ${B + 2 * margin}`;

  /** The rectangle through the outermost filters; the wider they are, the thicker its line. */
  function frame(p, sizes, kind, fault = false) {
    const { g, sigma2, delta } = minidraw.window(p, sizes);
    const side = (sizes.N - 1) * delta, shift = fault ? -delta : 0;
    const thick = clamp(1 + Math.sqrt(sigma2), 1.5, 6);
    const at = `x="${g[0] - side / 2 + shift}" y="${g[1] - side / 2 + shift}" width="${side}" height="${side}"`;
    return `<rect class="halo" ${at} stroke-width="${thick + 2.5}"/>`
      + `<rect class="frame ${kind}" ${at} stroke-width="${thick}"/>`;
  }

  const nats = (v) => (Math.abs(v) < 10 ? v.toFixed(1) : v.toFixed(0));

  function place([x, y]) {
    const across = x < -0.33 ? "left" : x > 0.33 ? "right" : "";
    const down = y < -0.33 ? "upper" : y > 0.33 ? "lower" : "";
    if (Math.abs(x) > 1 || Math.abs(y) > 1) return `outside, on the ${[down, across].join(" ").trim()}`;
    return across || down ? `the ${[down, across || "middle"].join(" ").trim()}` : "the middle";
  }

  // Look

  let steps = [], x, took = 0;

  function blank() {
    return model.start().c;
  }

  /** Let the model draw what there is to see. */
  function look() {
    const started = performance.now();
    x = state.strokes.length ? pad.image(state.strokes, config, data.binary) : images[state.digit];
    steps = [...model.infer(x, minidraw.gaussians(state.seed, T, z_size))];
    took = performance.now() - started;
    showLook();
  }

  const canvasAt = (t) => (t ? steps[t - 1].c : blank());

  function showLook() {
    const { t } = state, step = steps[t - 1];
    const drawing = state.strokes.length > 0;
    document.querySelectorAll("#digits input").forEach((input, k) => (input.checked = !drawing && k === state.digit));
    sheet();
    const [seen, drawn] = [$("seen"), $("drawn")].map((stage) => ["canvas", "svg"].map((n) => stage.querySelector(n)));
    paint(seen[0], x);
    paint(drawn[0], means(canvasAt(t)));
    [seen[1], drawn[1]].forEach((svg) => svg.setAttribute("viewBox", box(0)));
    seen[1].innerHTML = step && step.read_window ? frame(step.read_window, model.reading, "read") : "";
    drawn[1].innerHTML = step && step.write_window ? frame(step.write_window, model.writing, "write") : "";
    showPatches(step);
    $("t").value = t;
    $("t-value").textContent = `${t} of ${T}`;
    const L_x = [minidraw.bernoulli(blank(), x), ...steps.map((s) => s.L_x)];
    const L_z = steps.map((s) => s.L_z);
    const paid = L_z.slice(0, t).reduce((total, v) => total + v, 0);
    let text = "Step 0: nothing is drawn yet. To correct this canvas, pixel by pixel, would cost "
      + `${nats(L_x[0])} nats.`;
    if (step) {
      const looks = step.read_window ? `It reads ${place(step.read_window)}` : "It reads the whole image";
      const writes = step.write_window ? `writes ${place(step.write_window)}` : "writes the whole canvas";
      text = `Step ${t} of ${T}: ${looks}, takes ${nats(step.L_z)} nats, and ${writes}. So far ${nats(paid)} nats are `
        + `taken, and ${nats(step.L_x)} would correct the rest: ${nats(paid + step.L_x)} in all.`;
    }
    $("look-says").textContent = text;
    speak(text);
    pictures($("strip"), L_x.map((_, k) => means(canvasAt(k))), t);
    $("strip").classList.toggle("many", T > 15);
    $("strip").setAttribute("aria-label", `The canvas after each of ${T} steps; step ${t} is marked`);
    chartBars($("chart-z"), L_z, t, "KL of each step, in nats");
    chartLine($("chart-x"), L_x, t, "L_x of the canvas after each step, in nats");
    remember();
  }

  function showPatches(step) {
    const N = config.read_N, size = N && channels * N * N;
    const nothing = [new Float64Array(channels * 4).fill(0.5), 2];
    const [seen, missing] = step && N ? [step.r.subarray(0, size), step.r.subarray(size)] : [];
    const shown = {
      "patch-x": seen ? [bright(seen), N] : nothing,
      "patch-x_hat": missing ? [signed(missing), N] : nothing,
      "patch-w": step && step.w ? [signed(step.w), config.write_N] : nothing,
    };
    for (const [id, [patch, side]] of Object.entries(shown)) paint($(id), patch, side, side);
  }

  function scale(values) {
    const most = Math.max(...values, 1e-9), unit = 10 ** Math.floor(Math.log10(most));
    return [1, 2, 3, 4, 5, 6, 8, 10].map((n) => n * unit).find((top) => top >= most) || 10 * unit;
  }

  function axes(top, count, from) {
    const at = (k) => 34 + (280 * (k - from + 0.5)) / count;
    const every = Math.ceil(count / 11);
    let marks = "";
    for (let k = from; k < from + count; k += every)
      marks += `<text x="${at(k)}" y="146" text-anchor="middle">${k}</text>`;
    return { at, up: (v) => 126 - (112 * v) / top, marks: marks
      + `<text x="28" y="18" text-anchor="end">${Number(top.toPrecision(3))}</text>`
      + '<text x="28" y="130" text-anchor="end">0</text><path class="axis" d="M34 14H314M34 126H314"/>' };
  }

  function chartBars(svg, values, now, name) {
    const { at, up, marks } = axes(scale(values), values.length, 1);
    const width = Math.min(20, 200 / values.length);
    svg.innerHTML = marks + values.map((v, k) => `<rect class="bar${k + 1 === now ? " now" : ""}" `
      + `x="${at(k + 1) - width / 2}" y="${up(v)}" width="${width}" height="${126 - up(v)}"/>`).join("");
    svg.setAttribute("aria-label", `${name}: ${values.map(nats).join(", ")}`);
  }

  function chartLine(svg, values, now, name) {
    const { at, up, marks } = axes(scale(values), values.length, 0);
    svg.innerHTML = marks + `<path class="curve" d="M${values.map((v, k) => `${at(k)} ${up(v)}`).join("L")}"/>`
      + `<circle class="point" cx="${at(now)}" cy="${up(values[now])}" r="5"/>`
      + `<text x="${clamp(at(now), 50, 290)}" y="${Math.max(up(values[now]) - 10, 12)}" text-anchor="middle">`
      + `${nats(values[now])}</text>`;
    svg.setAttribute("aria-label", `${name}: ${values.map(nats).join(", ")}`);
  }

  // The sheet to draw on

  let down = false, pen = [0.5, (0.5 * B) / A], keys = false, waiting = false;

  function sheet() {
    const canvas = $("pad"), width = 560, height = Math.round((width * B) / A);
    if (canvas.width !== width) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = Math.max(width / 18, width / A / 1.5);
    for (const { points, color } of state.strokes) {
      context.strokeStyle = `rgb(${color.map((v) => Math.round(255 * v)).join(",")})`;
      context.beginPath();
      points.forEach(([px, py], k) => context[k ? "lineTo" : "moveTo"](width * px, width * py));
      if (points.length === 1) context.lineTo(width * points[0][0], width * points[0][1] + 0.1);
      context.stroke();
    }
    if (keys) {
      context.lineWidth = 3;
      context.strokeStyle = down ? "#ff7a33" : "#56b4e9";
      context.beginPath();
      context.arc(width * pen[0], width * pen[1], 14, 0, 7);
      context.stroke();
    }
    $("hint").hidden = state.strokes.length > 0 || keys;
  }

  const ink = () => [1, 3, 5].map((k) => parseInt($("ink").value.slice(k, k + 2), 16) / 255);
  const onSheet = ([px, py]) => {
    const tall = B / A; // as the address will say it
    return [Math.round(255 * clamp(px, 0, 1)) / 255, (Math.round(255 * clamp(py / tall, 0, 1)) / 255) * tall];
  };

  function begin(point) {
    state.strokes.push({ points: [onSheet(point)], color: ink() });
    later();
  }

  function extend(point) {
    const { points } = state.strokes[state.strokes.length - 1], last = points[points.length - 1];
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) < 0.015) return;
    points.push(onSheet(point));
    later();
  }

  /** Once a frame at most; a model too slow for that waits until the stroke is done. */
  function later(done = false) {
    sheet();
    if (waiting || (took > 80 && !done && down)) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      look();
    });
  }

  function bindPad() {
    const canvas = $("pad");
    const at = (event) => {
      const area = canvas.getBoundingClientRect();
      return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.width];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      [down, keys] = [true, false];
      begin(at(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!down || keys) return;
      const passed = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
      (passed.length ? passed : [event]).forEach((one) => extend(at(one)));
    });
    const up = () => {
      if (!down || keys) return;
      down = false;
      later(true);
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("blur", () => {
      if (keys && down) {
        down = false;
        later(true);
      }
      keys = false;
      sheet();
    });
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (way) {
        keys = true;
        const far = event.shiftKey ? 0.1 : 0.04;
        pen = [clamp(pen[0] + far * way[0], 0, 1), clamp(pen[1] + far * way[1], 0, B / A)];
        if (down) extend(pen);
      } else if (event.key === " ") {
        keys = true;
        down = !down;
        if (down) begin(pen);
        else later(true);
        speak(down ? "pen down" : "pen up");
      } else if (event.key === "Backspace") undo();
      else return;
      event.preventDefault();
      sheet();
    });
    const undo = () => {
      state.strokes.pop();
      if (keys) down = false;
      later(true);
    };
    $("undo").onclick = undo;
    $("clear").onclick = () => {
      state.strokes = [];
      down = false;
      later(true);
    };
  }

  // Playing: `tick`, every so many milliseconds, until it says that it is done

  function player(button, name, tick, pause = 350) {
    let timer = null;
    const stop = () => {
      clearInterval(timer);
      timer = null;
      button.textContent = name;
    };
    button.onclick = () => {
      if (timer !== null) return stop();
      button.textContent = "Stop";
      tick(true);
      timer = setInterval(() => tick(false) && stop(), calm.matches ? 1000 : pause);
    };
    return stop;
  }

  function bindLook() {
    $("t").max = T;
    $("t").oninput = () => {
      stopPlaying();
      state.t = Number($("t").value);
      showLook();
    };
    const stopPlaying = player($("play"), "Play", (first) => {
      state.t = first && state.t === T ? 0 : Math.min(state.t + 1, T);
      showLook();
      return state.t === T;
    }, clamp(7000 / T, 100, 350));
    $("noise").onclick = () => {
      state.seed = (state.seed + 1) % 1000000;
      look();
    };
    $("strip").onclick = (event) => {
      const k = [...$("strip").children].indexOf(event.target);
      if (k >= 0) {
        state.t = k;
        showLook();
      }
    };
  }

  const called = (k) => (data.labels ? `test image ${k}, a ${data.labels[k]}` : `image ${k}`);

  /** A picture to choose for each of `count`, radio buttons beneath. */
  function choices(parent, name, count, label, chosen) {
    for (let k = 0; k < count; k++) {
      const option = document.createElement("label");
      option.innerHTML = `<input type="radio" name="${name}" aria-label="${label(k)}"><canvas></canvas>`;
      option.firstChild.onchange = () => chosen(k);
      parent.append(option);
    }
  }

  // Window

  const WORDS = [["g̃<sub>x</sub>", "left or right"], ["g̃<sub>y</sub>", "up or down"], ["log σ²", "sharp or blurred"],
    ["log δ̃", "small or large"], ["log γ", "how loud"]];
  const SPOKEN = ["g x, left or right", "g y, up or down", "log sigma squared, sharp or blurred",
    "log delta, small or large", "log gamma, how loud"];
  const PUSHED = [["left", "right"], ["up", "down"], ["sharper", "more blurred"], ["smaller", "larger"],
    ["quieter", "louder"]];
  const margin = 0.25 * Math.max(A, B);
  let result, push, full;

  const sizes = () => ({ N: state.N, A, B });

  function bindNumbers() {
    $("numbers").innerHTML = WORDS.map(([name, word], k) => `<div class="number">
      <span>${name}<span class="word">${word}</span></span>
      <input type="range" id="p${k}" min="${LOW[k]}" max="${HIGH[k]}" step="0.01" aria-label="${SPOKEN[k]}">
      <output id="p${k}-value"></output>
      <span><svg id="push${k}" role="img" viewBox="-50 0 100 16" preserveAspectRatio="none"></svg>
        <span class="size" id="push${k}-value"></span></span></div>`).join("");
    WORDS.forEach((_, k) => ($(`p${k}`).oninput = () => {
      state.p[k] = Number($(`p${k}`).value);
      stopCrawling();
      showWindow();
    }));
  }
  let stopCrawling = () => {};

  /** Of one step downhill: dp times the rate, with at most 0.15 in all, as training clips its gradients. */
  function move() {
    const size = Math.hypot(...push);
    const rate = (0.1 / full) * Math.min(1, 1.5 / (size / full || 1));
    return push.map((v) => rate * v);
  }

  function showWindow() {
    const image = images[state.digit], energy = image.reduce((total, v) => total + v * v, 0);
    result = minidraw.over(image, Float64Array.from(state.p), sizes(), state.loss, state.fault);
    push = [...result.dp].map((v) => -v);
    full = state.loss === "back" ? energy / 8 || 1 : 0.5;
    $("window-digit").value = state.digit;
    $("N").value = state.N;
    $("loss").value = state.loss;
    $("fault").checked = state.fault;
    const stage = $("over"), canvas = stage.querySelector("canvas"), svg = stage.querySelector("svg");
    paint(canvas, image);
    svg.setAttribute("viewBox", box(margin));
    svg.innerHTML = overlay();
    curves($("F_x"), result.filters.F_x, A, true);
    curves($("F_y"), result.filters.F_y, B, false);
    bestSeen("glimpse", result.r, state.N, state.N);
    bestSeen("back", result.back, A, B);
    $("L").textContent = result.L.toFixed(state.loss === "back" ? 2 : 4);
    $("full").textContent = full.toFixed(1);
    push.forEach((v, k) => {
      $(`p${k}`).value = state.p[k];
      $(`p${k}-value`).textContent = state.p[k].toFixed(2);
      const length = 48 * clamp(v / full, -1, 1);
      $(`push${k}`).innerHTML = '<path class="axis" d="M-50 8H50M0 0V16"/>'
        + `<rect class="push" x="${Math.min(length, 0)}" y="3" width="${Math.abs(length)}" height="10"/>`;
      const text = Math.abs(v) < 1e-3 && v ? v.toExponential(0) : v.toFixed(Math.abs(v) < 1 ? 3 : 1);
      $(`push${k}-value`).textContent = text.replace("-", "−");
      $(`push${k}`).setAttribute("aria-label", `push on ${SPOKEN[k]}: ${text}`);
    });
    const text = windowText();
    $("window-says").textContent = text;
    stage.setAttribute("aria-label", `The window over ${called(state.digit)}, at ${place(state.p)}`);
    speak(`Loss ${$("L").textContent}. ${text}`);
    remember();
  }

  /** Show what may be faint, as bright as it can be, and say by how much. */
  function bestSeen(id, image, width, height) {
    const most = largest(image);
    paint($(id), image.map((v) => v / most), width, height);
    $(`${id}-scale`).textContent = most > 1e-6 ? `: white is ${most.toPrecision(2)}` : ": nothing";
  }

  function windowText() {
    const strongest = [0, 1, 2, 3, 4].sort((a, b) => Math.abs(push[b]) - Math.abs(push[a]))[0];
    const size = Math.abs(push[strongest]);
    if (size < 1e-3 * full) return "No push to speak of: from here the window does not feel the image, and would stay.";
    const silent = state.loss === "back" ? " γ gets none: reading multiplies by it, and writing divides by it." : "";
    return `The strongest push: ${PUSHED[strongest][push[strongest] > 0 ? 1 : 0]}.${silent}`;
  }

  /** What a hand can take: the corner that resizes; and sigma, beside the spot at the lower left, that blurs. */
  function handles() {
    const { g, delta } = minidraw.window(state.p, sizes());
    const side = (state.N - 1) * delta, shift = state.fault ? -delta : 0;
    const sigma = Math.exp(state.p[2] / 2), spot = [g[0] - side / 2 + shift, g[1] + side / 2 + shift];
    const size = g.map((v) => v + side / 2 + shift), blur = [spot[0] - sigma, spot[1]];
    return { g, side, shift, sigma, spot, size, blur };
  }

  function overlay() {
    const { g, sigma, spot, size, blur } = handles();
    const { mu_x, mu_y } = result.filters, dot = 0.011 * Math.max(A, B);
    let spots = "";
    mu_y.forEach((y) => mu_x.forEach((cx) => (spots += `<circle class="spot" cx="${cx}" cy="${y}" r="${dot}"/>`)));
    const way = move(), long = 6; // steps, so that it is seen
    const tip = [0, 1].map((k) => g[k] + long * way[k] * (([A, B][k] + 1) / 2));
    const length = Math.hypot(tip[0] - g[0], tip[1] - g[1]), unit = 0.06 * Math.max(A, B);
    let arrow = "";
    if (length > 0.02 * unit) {
      const [ux, uy] = [(tip[0] - g[0]) / length, (tip[1] - g[1]) / length], head = Math.min(unit, length / 2);
      const side = (s) => `${tip[0] - head * (ux + s * 0.6 * uy)} ${tip[1] - head * (uy - s * 0.6 * ux)}`;
      const d = `M${g[0]} ${g[1]}L${tip[0]} ${tip[1]}M${side(1)}L${tip[0]} ${tip[1]}L${side(-1)}`;
      arrow = `<path class="arrow under" d="${d}"/><path class="arrow" d="${d}"/>`;
    }
    const circle = (kind, [cx, cy], r) => `<circle class="${kind}" cx="${cx}" cy="${cy}" r="${r}"/>`;
    const grip = 0.03 * Math.max(A, B), ring = circle("ring", spot, sigma);
    const taken = ring + circle("handle size", size, grip) + circle("handle blur", blur, grip);
    const middle = state.fault ? frame(state.p, sizes(), "write") : "";
    return middle + frame(state.p, sizes(), "read", state.fault) + spots + taken + arrow;
  }

  /** Each filter as a hill over the pixels, on the scale of the stage beside it. */
  function curves(svg, F, size, across) {
    const most = largest(F) * 1.05, N = state.N;
    let hills = "";
    for (let i = 0; i < N; i++) {
      const points = Array.from({ length: size }, (_, a) => [a, F[i * size + a] / most]);
      const at = ([a, v]) => (across ? `${a} ${1 - v}` : `${v} ${a}`);
      hills += `<path class="filter" d="M${at([0, 0])}L${points.map(at).join("L")}L${at([size - 1, 0])}Z"/>`;
    }
    const whole = size + 2 * margin, first = -0.5 - margin;
    svg.setAttribute("viewBox", across ? `${first} 0 ${whole} 1` : `0 ${first} 1 ${whole}`);
    svg.innerHTML = hills;
    svg.setAttribute("aria-label", `The ${N} filters ${across ? "F x, across" : "F y, down"}`);
  }

  function step() {
    const way = move();
    state.p = fits(state.p.map((v, k) => v + way[k]));
    showWindow();
    return Math.hypot(...way) < 1e-3;
  }

  function bindWindow() {
    bindNumbers();
    images.forEach((_, k) => $("window-digit").add(new Option(data.labels ? `${k}: a ${data.labels[k]}` : `${k}`, k)));
    for (let N = 2; N <= 12; N++) $("N").add(new Option(N, N));
    const stage = $("over"), canvas = stage.querySelector("canvas");
    const [wide, high] = [A + 2 * margin, B + 2 * margin];
    stage.style.aspectRatio = `${wide} / ${high}`;
    Object.assign(canvas.style, { left: `${(100 * margin) / wide}%`, top: `${(100 * margin) / high}%`,
      width: `${(100 * A) / wide}%`, height: `${(100 * B) / high}%` });
    const on = (id, event, change) => $(id).addEventListener(event, () => {
      stopCrawling();
      change($(id));
      showWindow();
    });
    on("window-digit", "change", (select) => {
      [state.digit, state.strokes] = [Number(select.value), []];
    });
    on("N", "change", (select) => (state.N = Number(select.value)));
    on("loss", "change", (select) => (state.loss = select.value));
    on("fault", "change", (input) => (state.fault = input.checked));
    on("away", "click", () => (state.p = [2.2, 2.2, 0, -1.5, 0]));
    on("middle", "click", () => (state.p = [...FIRST]));
    on("step", "click", () => {
      const way = move();
      state.p = fits(state.p.map((v, k) => v + way[k]));
    });
    let left = 0;
    stopCrawling = player($("crawl"), "Let it crawl", (first) => {
      left = first ? 60 : left - 1;
      return step() || left <= 0;
    });
    bindDrag(stage);
  }

  function bindDrag(stage) {
    let hold = null; // null, "size", "blur", or where the window was taken
    let waits = false;
    const at = (event) => {
      const area = stage.getBoundingClientRect();
      return [((event.clientX - area.left) / area.width) * (A + 2 * margin) - margin - 0.5,
        ((event.clientY - area.top) / area.height) * (B + 2 * margin) - margin - 0.5];
    };
    const shown = () => {
      if (waits) return;
      waits = true;
      requestAnimationFrame(() => {
        waits = false;
        showWindow();
      });
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      stage.setPointerCapture(event.pointerId);
      stopCrawling();
      const places = handles(), { g, side, shift } = places, point = at(event);
      const far = (name) => Math.hypot(point[0] - places[name][0], point[1] - places[name][1]);
      const nearest = far("blur") < far("size") ? "blur" : "size";
      const inside = [0, 1].every((k) => Math.abs(point[k] - shift - g[k]) <= side / 2);
      const taken = inside ? g.map((v, k) => v - point[k]) : [0, 0];
      hold = far(nearest) < 0.07 * Math.max(A, B) ? nearest : taken;
      if (hold === taken) drag(event); // a knob waits for the first move
    });
    const drag = (event) => {
      if (hold === null) return;
      const point = at(event), { g, spot } = handles();
      if (hold === "blur")
        state.p[2] = 2 * Math.log(Math.max(Math.hypot(point[0] - spot[0], point[1] - spot[1]), 0.1));
      else if (hold === "size") {
        const reach = Math.max(...g.map((v, k) => point[k] - v), 0.3);
        const delta = reach / Math.max((state.N - 1) / 2 - (state.fault ? 1 : 0), 0.5);
        state.p[3] = Math.log((delta * (state.N - 1)) / Math.max(Math.max(A, B) - 1, 1));
      } else
        [A, B].forEach((size, k) => (state.p[k] = (point[k] + hold[k] - (size - 1) / 2) / ((size + 1) / 2)));
      state.p = fits(state.p);
      shown();
    };
    stage.addEventListener("pointermove", drag);
    ["pointerup", "pointercancel"].forEach((name) => stage.addEventListener(name, () => (hold = null)));
    stage.addEventListener("keydown", (event) => {
      const far = event.shiftKey ? 5 : 1;
      const change = { ArrowLeft: [0, -0.02], ArrowRight: [0, 0.02], ArrowUp: [1, -0.02], ArrowDown: [1, 0.02],
        "+": [3, 0.05], "=": [3, 0.05], "-": [3, -0.05], b: [2, 0.1], s: [2, -0.1] }[event.key];
      if (!change || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      stopCrawling();
      state.p[change[0]] += change[1] * (event.key.startsWith("Arrow") ? far : 1);
      state.p = fits(state.p);
      showWindow();
    });
  }

  // Dream

  let dreams = [], dreamt = null, path = null; // the noise of each, the steps drawn from it; images between two

  const last = (z, from) => means([...model.generate(z, from)].reduce((_, step) => step, from).c);

  function dream() {
    const z = minidraw.gaussians(state.seed, T * DREAMS, z_size);
    dreams = Array.from({ length: DREAMS }, (_, d) => z.slice(d * T, (d + 1) * T));
    dreamt = dreams.map((one) => [...model.generate(one)]);
    showDreams();
    showHeld();
    newPath();
  }

  function showDreams() {
    const { t } = state;
    $("seed").value = state.seed;
    $("dream-t").value = t;
    $("dream-t-value").textContent = `${t} of ${T}`;
    document.querySelectorAll("#dreams label").forEach((label, d) => {
      label.firstChild.checked = d + 1 === state.dream;
      paint(label.lastChild, means(t ? dreamt[d][t - 1].c : blank()));
    });
    remember();
  }

  function showHeld() {
    const { k } = state, one = state.dream - 1, held = k ? dreamt[one][k - 1] : model.start();
    const anew = minidraw.gaussians(state.seed + 1000000, T * DREAMS, z_size);
    const endings = Array.from({ length: DREAMS }, (_, d) =>
      last(anew.slice(d * T + k, (d + 1) * T), held));
    paint($("held"), means(held.c));
    pictures($("anew"), endings);
    let spread = 0;
    for (let i = 0; i < pixels; i++) {
      const values = endings.map((image) => image[i]), mean = values.reduce((a, b) => a + b) / DREAMS;
      spread += Math.sqrt(values.reduce((total, v) => total + (v - mean) ** 2, 0) / DREAMS) / pixels;
    }
    $("k").value = k;
    $("k-value").textContent = `${k} of ${T}`;
    $("anew").setAttribute("aria-label", `Twelve endings of dream ${one + 1}, its first ${k} steps held`);
    const what = k === 0 ? "Nothing is held" : k === T ? "All is held"
      : `Steps 1 to ${k} are held, ${k + 1} to ${T} drawn anew`;
    $("dream-says").textContent = `${what}: a pixel differs by ${spread.toFixed(3)} from ending to ending (standard `
      + "deviation, mean over the pixels).";
    speak($("dream-says").textContent);
    remember();
  }

  function between(s) {
    const [one, other] = [dreams[state.dream - 1], dreams[state.to - 1]];
    const [c, d] = s === 1 ? [0, 1] : [Math.cos((s * Math.PI) / 2), Math.sin((s * Math.PI) / 2)];
    return last(one.map((z, t) => z.map((v, k) => c * v + d * other[t][k])));
  }

  function newPath() {
    path = Array.from({ length: 12 }, (_, k) => between(k / 11));
    showPath();
  }

  function showPath() {
    $("to").value = state.to;
    $("s").value = state.s;
    $("s-value").textContent = state.s.toFixed(2);
    paint($("between"), between(state.s));
    pictures($("path"), path, Math.round(11 * state.s));
    $("path").setAttribute("aria-label", `Twelve images on the way from dream ${state.dream} to dream ${state.to}`);
    remember();
  }

  function bindDream() {
    $("dream-t").max = $("k").max = T;
    choices($("dreams"), "dream", DREAMS, (d) => `dream ${d + 1}`, (d) => {
      state.dream = d + 1;
      showDreams();
      showHeld();
      newPath();
    });
    for (let d = 1; d <= DREAMS; d++) $("to").add(new Option(d, d));
    const seeded = (seed) => {
      state.seed = clamp(seed, 0, 999999);
      dream();
      speak(`Twelve new dreams, from seed ${state.seed}`);
    };
    $("seed").onchange = () => seeded(whole($("seed").value, 0, 999999, state.seed));
    $("another").onclick = () => seeded((state.seed + 1) % 1000000);
    $("dream-t").oninput = () => {
      state.t = Number($("dream-t").value);
      showDreams();
      speak(`Dreams after step ${state.t} of ${T}`);
    };
    $("k").oninput = () => {
      state.k = Number($("k").value);
      showHeld();
    };
    $("to").onchange = () => {
      state.to = Number($("to").value);
      newPath();
      speak(`The way from dream ${state.dream} to dream ${state.to}`);
    };
    $("s").oninput = () => {
      state.s = Number($("s").value);
      showPath();
    };
  }

  // Tabs

  const tabs = ["look", "window", "dream"];

  function show() {
    for (const tab of tabs) {
      const chosen = tab === state.tab;
      $(tab).hidden = !chosen;
      $(`tab-${tab}`).setAttribute("aria-selected", chosen);
      $(`tab-${tab}`).tabIndex = chosen ? 0 : -1;
    }
    ({ look, window: showWindow, dream })[state.tab]();
  }

  function bindTabs() {
    tabs.forEach((tab, k) => {
      const choose = (name, focus) => {
        state.tab = name;
        show();
        if (focus) $(`tab-${name}`).focus();
      };
      $(`tab-${tab}`).onclick = () => choose(tab, false);
      $(`tab-${tab}`).onkeydown = (event) => {
        const way = { ArrowLeft: 2, ArrowRight: 1 }[event.key];
        if (way) choose(tabs[(k + way) % 3], true);
      };
    });
  }

  function begins() {
    const windows = model.reading || model.writing;
    const size = Object.values(data.shapes).reduce((all, shape) => all + shape.reduce((a, b) => a * b, 1), 0);
    $("about").textContent = `This is DRAW with all its ${size.toLocaleString("en")} numbers, alive in this page. `
      + `It looks at an image${windows ? " through a small window" : ""}, and draws it again, in ${T} `
      + `step${T > 1 ? "s" : ""}. Touch anything.`;
    $("mnist").hidden = !data.labels;
    document.querySelectorAll(".attentive").forEach((element) => (element.hidden = !windows));
    $("ink-label").hidden = channels !== 3;
    choices($("digits"), "digit", images.length, called, (k) => {
      [state.digit, state.strokes, down] = [k, [], false];
      look();
    });
    document.querySelectorAll("#digits canvas").forEach((canvas, k) => paint(canvas, images[k]));
    bindTabs();
    bindPad();
    bindLook();
    bindWindow();
    bindDream();
    restore();
    show();
    window.addEventListener("hashchange", () => {
      restore();
      show();
    });
  }

  begins();
})();
