// What the engine of the page makes of `data`, as page.data packs it, and of `tasks`: JSON from stdin to stdout.
"use strict";
const [engine, pad] = ["engine.js", "pad.js"].map((name) => require(`${process.argv[2]}/${name}`));
const { data, tasks } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const model = data && engine.load(data);
const floats = (list) => Float64Array.from(list);

const kinds = {
  infer: ({ x, noise }) => [...model.infer(floats(x), noise.map(floats))],
  generate: ({ z }) => [...model.generate(z.map(floats))],
  goOn: ({ z, k }) => [...model.generate(z.slice(k).map(floats), [...model.generate(z.slice(0, k).map(floats))].pop())],
  filterbank({ p, N, A, B, dF_x, dF_y, dgamma }) {
    const { backward, ...filters } = engine.filterbank(floats(p), { N, A, B });
    return { ...filters, dp: backward(floats(dF_x), floats(dF_y), dgamma) };
  },
  over: ({ x, p, N, A, B, loss, fault }) => engine.over(floats(x), floats(p), { N, A, B }, loss, fault),
  float16: ({ bytes }) => engine.float16(Uint8Array.from(bytes)),
  gaussians: ({ seed, steps, size }) => engine.gaussians(seed, steps, size),
  pad: ({ strokes, config, binary }) => pad.image(strokes, config, binary),
  time({ x, noise, rounds }) {
    const times = [];
    for (let k = 0; k < rounds; k++) {
      const start = process.cpuUsage().user;
      kinds.infer({ x, noise });
      times.push((process.cpuUsage().user - start) / 1000);
    }
    return times;
  },
};
const plain = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
process.stdout.write(JSON.stringify(tasks.map((task) => kinds[task.kind](task)), plain));
