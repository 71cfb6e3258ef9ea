"""DARN: an autoencoder whose latents are bits, drawn one after the other. Chapter 19.

    python tutorial/darn.py darn
    python tutorial/darn.py no-latents

train it, and the same model without its latents, on the bundled MNIST, and write NAME.npz, its weights as float16, and
NAME.json, its curve and its nats on the test images.

Gregor, Danihelka, Mnih, Blundell, Wierstra: Deep AutoRegressive Networks, ICML 2014, arXiv 1310.8499: one layer of
latents, with autoregressive visible units.
"""

import sys

import numpy as np
from descent import Descent, Maps, command, descend, load_weights, rows_of, save_weights, summary, summary_of_costs

from minidraw.autodiff import no_grad, primitive
from minidraw.backend import to_host
from minidraw.evaluation import log_mean_exp
from minidraw.images import mnist
from minidraw.ops import bernoulli
from minidraw.ops.affine import affine, masked_affine
from minidraw.ops.bernoulli import softplus
from minidraw.ops.elementary import logistic, mean
from minidraw.training import Recipe

# A bit, and what can be said of its gradient


def _drawn(a, u):
    """The bits h = [u < sigmoid(a)] as floats, and s = sigmoid(a); u uniform in [0, 1)."""
    s = logistic(a)
    return (u < s).astype(a.dtype), s


@primitive
def bits(a, u):
    """h, with p(h = 1) = sigmoid(a): logits a and noise u, uniform, both (batch, H). It has no pathwise gradient."""
    return _drawn(a, u)[0], lambda dh: (None, None)


@primitive
def straight_through_bits(a, u):
    """`bits`, with the gradient of its mean in place of its own, (19.14)."""
    h, s = _drawn(a, u)

    def backward(dh):
        return dh * s * (1 - s), None  # (19.14)

    return h, backward


@primitive
def darn_bits(a, u):
    """`bits`, with DARN's gradient, (19.13).

    Right on average where the cost is at most quadratic in each bit.
    """
    h, s = _drawn(a, u)

    def backward(dh):
        return dh * (h + s - 2 * h * s) / 2, None  # |h - s| / 2, (19.13)

    return h, backward


# Nats


@primitive
def nats_of_bits(logits, h):
    """-log p(h) in nats, (batch,): `bernoulli`, but the bits h (batch, H) have a gradient, too."""
    nats, backward_of_logits = bernoulli.on_arrays(logits, h)

    def backward(dnats):
        dlogits, _ = backward_of_logits(dnats)
        return dlogits, -dnats[:, None] * logits  # (4.6), (19.7)

    return nats, backward


@primitive
def entropy(a):
    """The entropy in nats, (batch,), of independent bits with logits a (batch, H), (19.3)."""
    s = logistic(a)

    def backward(dnats):
        return -dnats[:, None] * a * s * (1 - s)  # (19.8)

    return (softplus(a) - s * a).sum(axis=1), backward


# The model


class Darn:
    """Bits h (batch, H) behind an image x (batch, D) of zeros and ones."""

    def __init__(self, maps):
        """`maps` has the arrays that `shapes` names; without latents those of the pixels alone."""
        self.maps, xp = maps, maps.xp
        arrays = maps.arrays()
        self.D, self.H = len(arrays["pixels/b"]), len(arrays.get("prior/b", ()))
        self.earlier = {n: xp.triu(xp.ones((n, n), arrays["pixels/b"].dtype), 1) for n in (self.D, self.H)}  # i < j

    @staticmethod
    def shapes(H, D=784):
        """The name and shape of every parameter of a model with H latents; H may be 0."""
        pixels = {"lateral/w": (D, D), "pixels/b": (D,)}
        if H == 0:
            return pixels
        latents = {"encoder/w": (D, H), "encoder/b": (H,), "prior/w": (H, H), "prior/b": (H,), "pixels/w": (H, D)}
        return latents | pixels

    @classmethod
    def initial(cls, H, D=784, seed=0, xp=np):
        return cls(Maps.initial(cls.shapes(H, D), seed, xp))

    def encoder(self, x):
        """The logits a (batch, H) of q(h | x), (19.2)."""
        return self.maps("encoder", x)

    def nats_of(self, x, h):
        """-log p(x | h) and -log p(h), both (batch,), (19.4)."""
        p = self.maps.parameters
        above = affine(h, p["pixels/w"], p["pixels/b"])
        L_x = bernoulli(masked_affine(x, p["lateral/w"], above, self.earlier[self.D]), x)
        return L_x, nats_of_bits(masked_affine(h, p["prior/w"], p["prior/b"], self.earlier[self.H]), h)

    def nats(self, x, u, bits=darn_bits):
        """L_x and L_z of every image, both (batch,), in nats, (19.3).

        One drawing of h each, from noise u (batch, H); `bits` is how h's gradient is
        estimated. Without latents L_z is 0.
        """
        if self.H == 0:
            p = self.maps.parameters
            L_x = bernoulli(masked_affine(x, p["lateral/w"], p["pixels/b"], self.earlier[self.D]), x)
            return L_x, 0 * L_x
        a = self.encoder(x)
        L_x, cost = self.nats_of(x, bits(a, u))
        return L_x, cost - entropy(a)

    def score_function_loss(self, x, u, baseline=False):
        """A scalar with the score function's gradient, (19.10), or with a baseline, (19.11). Its value is not L."""
        a = self.encoder(x)
        h = bits(a, u)
        L_x, cost = self.nats_of(x, h)
        f = (L_x + cost).value
        if baseline:
            f = f - (f.sum() - f) / (len(f) - 1)  # minus the mean of the other rows
        return mean(L_x + cost - f * bernoulli(a, h.value) - entropy(a))

    def draw(self, h, u_x):
        """Images (count, D), drawn pixel by pixel behind the bits h (count, H); and the probabilities of the pixels.

        u_x (count, D) uniform noise. Without latents h is not looked at.
        """
        p = self.maps.arrays()
        above = h @ p["pixels/w"] + p["pixels/b"] if self.H else p["pixels/b"]
        return ancestral(p["lateral/w"], above, u_x)

    def sample(self, u_h, u_x):
        """`draw` behind bits that were themselves drawn one by one, from the prior; u_h (count, H) uniform noise."""
        p, h = self.maps.arrays(), u_h
        if self.H:
            h, _ = ancestral(p["prior/w"], p["prior/b"], u_h)
        return self.draw(h, u_x)


def ancestral(W, logits, u):
    """Draw n units one after the other: (count, n) zeros and ones, and their probabilities.

    Each comes from a logit, of logits (n,) or (count, n), that those before it moved
    by what lies above the diagonal of W (n, n). Noise u (count, n), uniform.
    """
    logits, h = 0 * u + logits, u.copy()
    for j in range(len(W)):
        h[:, j] = u[:, j] < logistic(logits[:, j])
        logits[:, j + 1 :] += h[:, j, None] * W[j, j + 1 :]
    return h, logistic(logits)


def _one_drawing(darn, x, u):
    """L_x, L_z and the log importance weight, all (batch,), of one drawing of h each, from noise u. (19.3), (13.1)."""
    if darn.H == 0:
        L_x, L_z = darn.nats(x, u)
        return L_x, L_z, -L_x
    a = darn.encoder(x)
    h = bits(a, u)
    L_x, cost = darn.nats_of(x, h)
    return L_x, cost - entropy(a), bernoulli(a, h) - L_x - cost


def evaluate(darn, images, samples=1, seed=0, batch_size=250):
    """L_x, L_z and log importance weights, (3, samples, count) in NumPy: of each image `samples` drawings.

    `seed` and `batch_size` give the noise.
    """
    xp, found = darn.maps.xp, []
    with no_grad():
        for start in range(0, len(images), batch_size):
            x = xp.asarray(images[start : start + batch_size].astype(np.float32))
            rng = np.random.default_rng([seed, 2, start])
            noise = [rng.random((len(x), darn.H), np.float32) for _ in range(samples)]
            drawings = [[to_host(nats.value) for nats in _one_drawing(darn, x, xp.asarray(u))] for u in noise]
            found.append(np.array(drawings, np.float64).swapaxes(0, 1))
    return np.concatenate(found, axis=2)


# The command

UNITS = {"darn": 500, "no-latents": 0}
RECIPE = Recipe(steps=10_000, horizon=10_000, learning_rate=3e-3, hold=0.3, floor=0.01, clip=20.0)
SAMPLES = 50  # importance weights of a test image
LOOKED_AT = 2000  # test images that have so many


def training(name, recipe, xp):
    """The model of that name, its Descent, and the function of a step, for `descend`."""
    darn = Darn.initial(UNITS[name], seed=recipe.seed, xp=xp)
    images, descent = mnist().train, Descent(darn.maps, recipe)

    def step(number):
        x = xp.asarray(rows_of(images, recipe, number)).astype(np.float32)
        u = np.random.default_rng([recipe.seed, 3, number]).random((len(x), darn.H), np.float32)
        L_x, L_z = darn.nats(x, xp.asarray(u))
        norm = descent.step(mean(L_x + L_z))
        return {"L_x": L_x.value.mean(), "L_z": L_z.value.mean(), "norm": norm}

    return darn, descent, step


def train(name, recipe, path, xp):
    """Train the model of that name; see `descent.command`."""
    (darn, descent, step), images = training(name, recipe, xp), mnist()
    curve, seconds = descend(path, {"darn": descent}, step, recipe, {"units": darn.H})
    save_weights(path.with_suffix(".npz"), {"units": darn.H}, darn.maps)
    results = {"units": darn.H, "parameters": darn.maps.number_of_parameters, "steps": recipe.steps, "seconds": seconds}
    for split in ("validation", "test"):
        L_x, L_z, _ = evaluate(darn, getattr(images, split))[:, 0]
        results[split] = summary_of_costs(L_x, L_z)
    if darn.H:
        weights = evaluate(darn, images.test[:LOOKED_AT], SAMPLES)[2]
        results["importance_weighted"] = {"samples": SAMPLES, **summary(-log_mean_exp(weights))}
    test = results["test"]
    line = f"test {test['nats']:.2f} ± {test['standard_error']:.2f} nats, of which L_z {test['L_z']:.2f}"
    return {**results, "curve": curve}, line


def trained(path, xp=np):
    """The Darn in a file of weights, float32."""
    return Darn(Maps(load_weights(path, xp)[1]))


if __name__ == "__main__":
    sys.exit(command("darn", UNITS, train, RECIPE))
