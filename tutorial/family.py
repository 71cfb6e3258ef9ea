"""The family: DRAW, the VAE that it repeats, DRAW without attention, and DRAW with bits for z. Chapter 21.

    python tutorial/family.py NAME

trains `vae`, `no-attention`, `attention` or `bits` by the recipe of `quick` on the same batches, and writes NAME.npz,
drawings (and of `bits` the weights, as float16), and NAME.json, the curve and the nats on the test images.

    python tutorial/family.py sampling
    python tutorial/family.py table

measures how long each member of the family takes for a drawing, into runs/sampling.json beside this file; and prints
the table of all of them from the results that lie there.
"""

import sys
from dataclasses import asdict, dataclass, replace

import numpy as np
from darn import ancestral, darn_bits, entropy, nats_of_bits
from descent import Descent, command, descend, load, rows_of, save, summary

from minidraw.autodiff import no_grad
from minidraw.backend import to_host
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.images import mnist
from minidraw.ops import affine, bernoulli, error_image, lstm, masked_affine
from minidraw.ops.elementary import concat, mean, sigmoid
from minidraw.presets import PRESETS


@dataclass(frozen=True)
class BitConfig(Config):
    """The sizes of a DRAW whose z are bits: in place of sigma's map there are those of the prior."""

    @property
    def shapes(self):
        own = {"prior/w": (self.dec_size, self.z_size), "prior/b": (self.z_size,), "among/w": (self.z_size,) * 2}
        return {name: shape for name, shape in super().shapes.items() if not name.startswith("sigma")} | own


class DrawWithBits(Draw):
    """DRAW, with z_t (batch, Z) of zeros and ones, drawn from u_t uniform in [0, 1).

    The prior of a bit looks at the bits before it: at those of this step directly, at those of earlier steps through
    the state that they left in the decoder, (21.1).
    """

    def __init__(self, config, parameters):
        super().__init__(config, parameters)
        self.earlier = self.xp.triu(self.xp.ones((config.z_size, config.z_size), self.dtype), 1)

    def infer(self, x, noise):
        """The canvas c_t and the nats of z_t, (batch,), for every t: DRAW's loop, and three of its lines replaced."""
        c, h_enc, cell_enc, h_dec, cell_dec = self._start(len(x), "c", "h_enc", "cell_enc", "h_dec", "cell_dec")
        W, b = self._encoder(x)
        for u in noise:
            x_hat = error_image(x, c)  # (3)
            r, _ = self._read(x, x_hat, h_dec)  # (4)
            h_enc, cell_enc = lstm(affine(concat(r, h_dec, h_enc), W, b), cell_enc)  # (5)
            a = self._affine("mu", h_enc)  # (19.2), in place of (1) and (2)
            z = darn_bits(a, u)  # (19.13), in place of (6)
            L_z = nats_of_bits(self._prior(z, h_dec), z) - entropy(a)  # (19.3), in place of (10)
            h_dec, cell_dec = lstm(self._affine("decoder", z, h_dec), cell_dec)  # (7)
            stroke, _ = self._write(h_dec)
            c = c + stroke  # (8)
            yield c, L_z

    def _prior(self, z, h_dec):
        """The logits of p(z_t | z_<t), (21.1)."""
        return masked_affine(z, self.parameters["among/w"], self._affine("prior", h_dec), self.earlier)

    def nats(self, x, noise):
        """L_x and L_z of every image, both (batch,), in nats."""
        canvases, costs = zip(*self.infer(x, noise), strict=True)
        return bernoulli(canvases[-1], x), sum(costs)

    def generate(self, noise):
        """The canvas c_t for every t, from the prior; noise (T, count, Z) uniform."""
        c, h_dec, cell_dec = self._start(noise.shape[1], "c", "h_dec", "cell_dec")
        for u in noise:
            z, _ = ancestral(self.parameters["among/w"].value, self._affine("prior", h_dec).value, u)
            h_dec, cell_dec = lstm(self._affine("decoder", z, h_dec), cell_dec)
            stroke, _ = self._write(h_dec)
            c = c + stroke
            yield c


# The trainings

CONFIG, RECIPE = PRESETS["quick"]
MODELS = {
    "vae": (Draw, replace(CONFIG, T=1, read_N=None, write_N=None)),
    "no-attention": (Draw, replace(CONFIG, read_N=None, write_N=None)),
    "attention": (Draw, CONFIG),
    "bits": (DrawWithBits, BitConfig(**{**asdict(CONFIG), "z_size": 50})),
}


def noise_of(model, rng, count):
    """Noise (T, count, Z) as the model takes it: uniform for bits, else N(0, 1)."""
    draw = rng.random if isinstance(model, DrawWithBits) else rng.standard_normal
    return model.asarray(draw((model.config.T, count, model.config.z_size), np.float32))


def evaluate(model, images, seed=0, batch_size=250):
    """L_x and L_z of every image, (2, n), NumPy."""
    found = []
    with no_grad():
        for start in range(0, len(images), batch_size):
            x = model.asarray(images[start : start + batch_size])
            noise = noise_of(model, np.random.default_rng([seed, 2, start]), len(x))
            found.append([to_host(nats.value) for nats in model.nats(x, noise)])
    return np.concatenate(found, axis=1).astype(np.float64)


def drawings(model, count, seed=0):
    """The means (count, 28, 28) of drawings from the prior, NumPy, in [0, 1]."""
    noise = noise_of(model, np.random.default_rng([seed, 4]), count)
    with no_grad():
        *_, last = model.generate(noise)
        return model.config.as_images(to_host(sigmoid(getattr(last, "c", last)).value))


def train(name, recipe, path, xp):
    """Train the model of that name; see `descent.command`."""
    Model, config = MODELS[name]
    model, images = Model.initial(config, recipe.seed, xp=xp), mnist()
    descent = Descent(model, recipe)

    def step(number):
        x = model.asarray(rows_of(images.train, recipe, number))
        L_x, L_z = model.nats(x, noise_of(model, np.random.default_rng([recipe.seed, 3, number]), len(x)))
        norm = descent.step(mean(L_x + L_z))
        return {"L_x": L_x.value.mean(), "L_z": L_z.value.mean(), "norm": norm}

    curve, seconds = descend(path, {"model": descent}, step, recipe, {"model": name})
    results = {"parameters": config.number_of_parameters, "steps": recipe.steps, "seconds": seconds}
    for split in ("validation", "test"):
        L_x, L_z = evaluate(model, getattr(images, split))
        results[split] = summary(L_x + L_z) | {"L_x": round(L_x.mean(), 3), "L_z": round(L_z.mean(), 3)}
    weights = {name: to_host(a).astype(np.float16) for name, a in model.arrays().items()} if name == "bits" else {}
    pictures = {"pictures": (drawings(model, 100) * 255).round().astype(np.uint8)}
    save(path.with_suffix(".npz"), {"model": name}, weights | pictures)
    test = results["test"]
    line = f"test {test['nats']:.2f} ± {test['standard_error']:.2f} nats, of which L_z {test['L_z']:.2f}"
    return {**results, "curve": curve}, line


def trained(path, xp=np):
    """The DrawWithBits in the file that `bits` became, float32."""
    Model, config = MODELS["bits"]
    _, arrays = load(path)
    return Model(config, {name: xp.asarray(arrays[name].astype(np.float32)) for name in config.shapes})


if __name__ == "__main__":
    sys.exit(command("family", MODELS, train, RECIPE))
