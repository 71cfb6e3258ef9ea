"""The family: VAE, DRAW without and with attention, DRAW with bits for z, beside DARN and GAN. Chapter 21.

    python tutorial/family.py NAME

trains `vae`, `draw-whole`, `draw` or `draw-bits` by the recipe of `quick`, all on the same batches, and writes
NAME.json, the curve and the nats on the test images, and NAME.npz, drawings.

    python tutorial/family.py times
    python tutorial/family.py table

The first measures how long each member of the family takes for a step and for a hundred drawings, into times.json (with
OPENBLAS_NUM_THREADS=1 on one core); the second prints the table of all of them from the results in runs/ beside this
file.
"""

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import darn
import gan
import numpy as np
from descent import Descent, command, descend, rows_of, save, summary_of_costs

from minidraw.autodiff import no_grad
from minidraw.backend import to_host, wait_for
from minidraw.config import Config
from minidraw.draw import Draw, Glimpse
from minidraw.errors import BadInput
from minidraw.images import mnist
from minidraw.ops import affine, bernoulli, error_image, lstm, masked_affine
from minidraw.ops.elementary import concat, mean, sigmoid
from minidraw.presets import PRESETS

# DRAW with bits for z


class BitConfig(Config):
    """The sizes of a DRAW whose z are bits: the maps of the prior in place of that of sigma."""

    @property
    def shapes(self):
        prior = {"prior/w": (self.dec_size, self.z_size), "prior/b": (self.z_size,), "among/w": (self.z_size,) * 2}
        return {name: shape for name, shape in super().shapes.items() if not name.startswith("sigma")} | prior


class DrawWithBits(Draw):
    """DRAW, with z_t (batch, Z) of zeros and ones; its noise is uniform in [0, 1).

    The prior of a bit looks at the bits before it, (21.1): at those of this step directly, at those of earlier steps
    through the state that they left in the decoder.
    """

    def __init__(self, config, parameters):
        super().__init__(config, parameters)
        self.earlier = self.xp.triu(self.xp.ones((config.z_size, config.z_size), self.dtype), 1)

    def infer(self, x, noise):
        """c_t and the nats (batch,) of z_t for every t: DRAW's loop with three other lines."""
        self.check(x, noise)
        c, h_enc, cell_enc, h_dec, cell_dec = self._start(len(x), "c", "h_enc", "cell_enc", "h_dec", "cell_dec")
        W, b = self._encoder(x)
        for u in noise:
            x_hat = error_image(x, c)  # (3)
            r, _ = self._read(x, x_hat, h_dec)  # (4)
            h_enc, cell_enc = lstm(affine(concat(r, h_dec, h_enc), W, b), cell_enc)  # (5)
            a = self._affine("mu", h_enc)  # (19.2), in place of (1) and (2)
            z = darn.darn_bits(a, u)  # (19.13), in place of (6)
            L_z = darn.nats_of_bits(self.prior(z, h_dec), z) - darn.entropy(a)  # (21.2), in place of (10)
            h_dec, cell_dec = lstm(self._affine("decoder", z, h_dec), cell_dec)  # (7)
            stroke, _ = self._write(h_dec)
            c = c + stroke  # (8)
            yield c, L_z

    def prior(self, z, h_dec):
        """The logits (batch, Z) of p(z_t | z_<t), from the decoder's previous state, (21.1)."""
        return masked_affine(z, self.parameters["among/w"], self._affine("prior", h_dec), self.earlier)

    def nats(self, x, noise):
        """L_x and L_z of every image, both (batch,), in nats."""
        canvases, costs = zip(*self.infer(x, noise), strict=True)
        return bernoulli(canvases[-1], x), sum(costs)

    def generate(self, noise):
        """A Glimpse for every t, drawn from the prior bit by bit, from noise (T, batch, Z)."""
        c, h_dec, cell_dec = self._start(noise.shape[1], "c", "h_dec", "cell_dec")
        for u in noise:
            z, _ = darn.ancestral(self.parameters["among/w"].value, self._affine("prior", h_dec).value, u)
            h_dec, cell_dec = lstm(self._affine("decoder", z, h_dec), cell_dec)
            stroke, window = self._write(h_dec)
            c = c + stroke
            yield Glimpse(c, z, window)


# The trainings

CONFIG, RECIPE = PRESETS["quick"]
MODELS = {  # each with as many latents as `quick`, T Z = 50, but the bits: a bit says less than a Gaussian number
    "vae": (Draw, replace(CONFIG, T=1, z_size=50, read_N=None, write_N=None)),
    "draw-whole": (Draw, replace(CONFIG, read_N=None, write_N=None)),
    "draw": (Draw, CONFIG),
    "draw-bits": (DrawWithBits, BitConfig(**asdict(replace(CONFIG, z_size=50)))),
}
COUNT = 20  # drawings of each that are kept


def noise_of(model, rng, count):
    """Noise (T, count, Z) as the model takes it: uniform for bits, else N(0, 1)."""
    draw = rng.random if isinstance(model, DrawWithBits) else rng.standard_normal
    return model.asarray(draw((model.config.T, count, model.config.z_size), np.float32))


def evaluate(model, images, seed=0, batch_size=250):
    """L_x and L_z of every image, (2, n), NumPy, one drawing each; `seed` and `batch_size` give the noise."""
    found = []
    with no_grad():
        for start in range(0, len(images), batch_size):
            x = model.asarray(images[start : start + batch_size])
            noise = noise_of(model, np.random.default_rng([seed, 2, start]), len(x))
            found.append([to_host(nats.value) for nats in model.nats(x, noise)])
    return np.concatenate(found, axis=1).astype(np.float64)


def drawings(model, count, seed=0):
    """The means of new drawings, (count, 28, 28) in [0, 1], NumPy."""
    noise = noise_of(model, np.random.default_rng([seed, 4]), count)
    with no_grad():
        *_, last = model.generate(noise)
        return model.config.as_images(to_host(sigmoid(last.c).value))


def training(name, recipe, xp):
    """The model of that name, its Descent, and the function of a step, for `descend`."""
    Model, config = MODELS[name]
    model, images = Model.initial(config, recipe.seed, xp=xp), mnist().train
    descent = Descent(model, recipe)

    def step(number):
        x = model.asarray(rows_of(images, recipe, number))
        L_x, L_z = model.nats(x, noise_of(model, np.random.default_rng([recipe.seed, 3, number]), len(x)))
        norm = descent.step(mean(L_x + L_z))
        return {"L_x": L_x.value.mean(), "L_z": L_z.value.mean(), "norm": norm}

    return model, descent, step


def train(name, recipe, path, xp):
    """Train the model of that name, or measure the times of all; see `descent.command`."""
    if name == "times":
        if recipe != RECIPE:
            raise BadInput("times takes the recipe as it is: leave these out", "steps", "seed")
        return times(xp)
    (model, descent, step), images = training(name, recipe, xp), mnist()
    curve, seconds = descend(path, {"model": descent}, step, recipe, {"model": name})
    save(path.with_suffix(".npz"), {"model": name}, {"drawings": (drawings(model, COUNT) * 255).astype(np.uint8)})
    results = {"parameters": model.config.number_of_parameters, "steps": recipe.steps, "seconds": seconds}
    for split in ("validation", "test"):
        L_x, L_z = evaluate(model, getattr(images, split))
        results[split] = summary_of_costs(L_x, L_z)
    test = results["test"]
    line = f"test {test['nats']:.2f} ± {test['standard_error']:.2f} nats, of which L_z {test['L_z']:.2f}"
    return {**results, "curve": curve}, line


# The whole family

RUNS = Path(__file__).resolve().parent / "runs"
DRAWN = 100
TIMES = 15  # each is measured so often


def lowest(do, xp):
    """The milliseconds of do(k), k = 1..TIMES, at best: what is in the way only makes it longer."""
    found = []
    for k in range(1, TIMES + 1):
        start = time.perf_counter()
        do(k)
        wait_for(xp)
        found.append((time.perf_counter() - start) * 1e3)
    return round(min(found), 1)


def times(xp):
    """For each member the milliseconds of a training step and of DRAWN drawings, as results and a line."""
    found = {}
    for name in MODELS:
        model, _, step = training(name, RECIPE, xp)
        found[name] = {"step_ms": lowest(step, xp), "draw_ms": lowest(lambda k, m=model: drawings(m, DRAWN, k), xp)}
    model, _, step = darn.training("darn", darn.RECIPE, xp)
    u_h, u_x = (xp.asarray(np.random.default_rng(0).random((DRAWN, n), np.float32)) for n in (model.H, model.D))
    found["darn"] = {"step_ms": lowest(step, xp), "draw_ms": lowest(lambda k: model.sample(u_h, u_x), xp)}
    descents, step = gan.game(gan.RECIPE, xp)
    z = xp.asarray(np.random.default_rng(0).standard_normal((DRAWN, gan.GENERATOR[0]), np.float32))
    generator = descents["generator"].maps
    found["gan"] = {"step_ms": lowest(step, xp), "draw_ms": lowest(lambda k: gan.generate(generator, z), xp)}
    return {"drawings": DRAWN, **found}, f"milliseconds of a step, of {DRAWN} drawings: {found}"


BATCH = {"darn": darn.RECIPE.batch_size, "gan": gan.RECIPE.batch_size}
NAMES = {
    "vae": "VAE",
    "darn": "DARN",
    "gan": "GAN, 14 x 14",
    "draw-whole": "DRAW, no window",
    "draw": "DRAW",
    "draw-bits": "DRAW, bits for z",
}


def table():
    """Of each member: nats on test, what of them are the latents', parameters, and what it took; as text."""
    took = json.loads((RUNS / "times.json").read_text(encoding="utf-8"))
    head = f"{'':18} {'nats':>12} {'L_z':>5} {'parameters':>11} {'images':>10} {'training':>9}"
    rows = [f"{head} {took['drawings']:>4} drawings"]
    for name, words in NAMES.items():
        found = json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))
        nats = L_z = "none"
        if test := found.get("test"):
            nats, L_z = f"{test['nats']:.1f} ± {test['standard_error']:.1f}", f"{test['L_z']:.1f}"
        parameters, steps, ms = int(np.sum(found["parameters"])), found["steps"], took[name]
        images, minutes = steps * BATCH.get(name, RECIPE.batch_size), steps * ms["step_ms"] / 60_000
        row = f"{words:18} {nats:>12} {L_z:>5} {parameters:>11,} {images:>10,} {minutes:>5.1f} min"
        rows.append(f"{row} {ms['draw_ms']:>10.1f} ms")
    return "\n".join(rows)


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        try:
            print(table())
        except OSError as error:
            sys.exit(f"family: {error}")
    else:
        sys.exit(command("family", (*MODELS, "times"), train, RECIPE))
