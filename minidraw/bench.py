"""How long a training step takes, beside the matrix products that it cannot do without. Chapter 15."""

import time
from typing import NamedTuple

import numpy as np

from minidraw.draw import Draw
from minidraw.train import Trainer


class Timing(NamedTuple):
    """Medians over the rounds, in milliseconds; spread is the range between the quartiles."""

    preset: str
    attention: bool
    step_ms: float
    step_spread_ms: float
    floor_ms: float
    floor_spread_ms: float
    ratio: float  # step over floor
    images_per_second: float


def matrix_products(config, batch_size):
    """A function that does the matrix products of one training step of the straightforward model, and nothing else.

    For every weight and every t the product forward, x W, and the product with the transposed weight backward, dy W^T;
    and once for every weight its gradient, one product over T * batch rows; float32, into arrays made beforehand.
    """
    rng = np.random.default_rng(0)
    T, weights = config.T, []
    for fan_in, fan_out in (shape for shape in config.shapes.values() if len(shape) == 2):
        x, dy = (rng.standard_normal((T, batch_size, size), np.float32) for size in (fan_in, fan_out))
        W = rng.standard_normal((fan_in, fan_out), np.float32)
        weights.append((x, W, dy, np.empty_like(dy[0]), np.empty_like(x[0]), np.empty_like(W)))

    def products():
        for t in range(T):
            for x, W, _, y, _, _ in weights:
                np.matmul(x[t], W, out=y)
        for t in range(T):
            for _, W, dy, _, dx, _ in weights:
                np.matmul(dy[t], W.T, out=dx)
        for x, W, dy, _, _, dW in weights:
            np.matmul(x.reshape(-1, len(W)).T, dy.reshape(-1, W.shape[1]), out=dW)

    return products


def bench(preset, config, recipe, images, rounds=40):
    """The Timing of a configuration on NumPy: step and products in turn, so that a busy machine slows both."""
    trainer = Trainer(Draw.initial(config, recipe.seed), images, recipe)
    products = matrix_products(config, recipe.batch_size)

    def seconds(work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    times = np.array([[seconds(trainer.advance), seconds(products)] for _ in range(rounds + 3)])[3:] * 1e3
    low, (step, floor), high = np.percentile(times, (25, 50, 75), axis=0)
    spread = high - low
    return Timing(
        preset,
        config.read_N is not None,
        float(step),
        float(spread[0]),
        float(floor),
        float(spread[1]),
        float(step / floor),
        float(recipe.batch_size / step * 1e3),
    )
