"""The bound on -log p(x) in nats, and an importance-weighted estimate of -log p(x) itself. Chapters 12 and 13."""

from typing import NamedTuple

import numpy as np

from minidraw.autodiff import no_grad
from minidraw.backend import array_module, to_host
from minidraw.draw import check_images
from minidraw.errors import BadInput
from minidraw.ops import bernoulli, kl


class Evaluation(NamedTuple):
    """Means over the images, in nats an image, with the standard error of the mean."""

    images: int
    samples: int  # K, the drawings of each image
    bound: float  # L_x + L_z, an upper bound on -log p(x)
    standard_error: float | None  # of the bound; None for a single image
    L_x: float
    L_z: float
    L_z_by_step: list  # T values, their sum is L_z
    importance_weighted: float | None  # -log of the mean of K importance weights: a tighter bound; None for K = 1
    importance_weighted_standard_error: float | None


def _one_drawing(model, x, noise):
    """Of one drawing each: L_x (batch,), L_z by step (T, batch), and log w (batch,).

    The log importance weight log w = log D(x | c_T) + sum_t log p(z_t) - log q(z_t | .)
    at the z that were sampled. With z = mu + sigma * noise both log densities end in
    -Z/2 log 2 pi, and what is left is sum (noise^2 - z^2)/2 + log sigma, (13.3).
    """
    L_z, log_ratio = [], 0
    for glimpse, e in zip(model.infer(x, noise), noise, strict=True):
        z, log_sigma = glimpse.z.value, glimpse.log_sigma.value
        L_z.append(kl(glimpse.mu, glimpse.log_sigma).value)
        log_ratio = log_ratio + ((e * e - z * z) / 2 + log_sigma).sum(axis=1)
    L_x = bernoulli(glimpse.c, x).value
    return L_x, array_module(L_x).stack(L_z), log_ratio - L_x


def nats_of_each(model, images, samples=1, seed=0, batch_size=250, progress=iter):
    """L_x (K, count), L_z by step (K, T, count) and log w (K, count) of `samples` drawings of each image, NumPy.

    `images` is a NumPy array (count, pixels). `seed` and `batch_size` give the noise, drawn by NumPy. `progress` may
    wrap the iterable of batches, as tqdm does. Raises BadInput for images of another shape, or with values outside
    [0, 1], and for numbers below 1.
    """
    check_images(images, model.config)
    if samples < 1 or batch_size < 1:
        raise BadInput(f"samples is {samples} and batch_size {batch_size}: both must be whole numbers from 1 up")
    config, xp = model.config, model.xp
    batches = []  # of each: (K, batch), (K, T, batch), (K, batch)
    with no_grad():
        for start in progress(range(0, len(images), batch_size)):
            x = model.asarray(images[start : start + batch_size])
            rng = np.random.default_rng([seed, start])
            drawings = []
            for _ in range(samples):
                noise = rng.standard_normal((config.T, len(x), config.z_size), dtype=np.float32)
                drawings.append(_one_drawing(model, x, model.asarray(noise)))
            batches.append([to_host(xp.stack(column)).astype(np.float64) for column in zip(*drawings, strict=True)])
    return [np.concatenate(column, axis=-1) for column in zip(*batches, strict=True)]


def evaluate(model, images, samples=1, seed=0, batch_size=250, progress=iter):
    """The Evaluation of `images` with `samples` drawings of each; arguments, and what is raised, as in nats_of_each."""
    return summary(*nats_of_each(model, images, samples, seed, batch_size, progress))


def summary(L_x, L_z, log_w):
    """The Evaluation of what `nats_of_each` returns."""
    samples, images = L_x.shape
    bound = (L_x + L_z.sum(axis=1)).mean(axis=0)
    weighted = -log_mean_exp(log_w)  # (13.2)
    several = samples > 1
    return Evaluation(
        images=images,
        samples=samples,
        bound=float(bound.mean()),
        standard_error=_standard_error(bound),
        L_x=float(L_x.mean()),
        L_z=float(L_z.sum(axis=1).mean()),
        L_z_by_step=L_z.mean(axis=(0, 2)).tolist(),
        importance_weighted=float(weighted.mean()) if several else None,
        importance_weighted_standard_error=_standard_error(weighted) if several else None,
    )


def log_mean_exp(a):
    """log of the mean of e^a over the first axis, without overflow."""
    largest = a.max(axis=0)
    return largest + np.log(np.exp(a - largest).mean(axis=0))


def _standard_error(values):
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
