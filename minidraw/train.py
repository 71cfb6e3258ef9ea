"""The training loop: one seed, one result; it yields its metrics and draws nothing. Chapter 12."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minidraw.adam import Adam, clip_factor
from minidraw.backend import array_module, standard_normal, to_host
from minidraw.data import binarise
from minidraw.errors import BadInput
from minidraw.share import Alone, Workers, cores, keep_memory

ORDER, NOISE = 1, 2  # the streams of random numbers that a run draws from its seed


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Raises BadInput for numbers that cannot be."""

    steps: int = 10_000
    batch_size: int = 100
    learning_rate: float = 1e-3  # at its height
    warm_up: int = 200  # steps from 0 to the height, along a line
    horizon: int = 10_000  # the step at which the cosine decay ends; later steps stay at `floor`
    floor: float = 0.05  # of the height
    clip: float = 5.0  # the largest global norm of a gradient
    seed: int = 0
    binary: bool = True  # grey images are binarised afresh each time they are seen
    workers: int = 1  # processes that share a batch on the CPU; the rounding depends on their number, nothing else

    def __post_init__(self):
        for name in ("steps", "batch_size", "horizon", "workers"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)!r}: it must be a whole number from 1 up")
        for name in ("seed", "warm_up"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise BadInput(f"{name} is {getattr(self, name)!r}: it must be a whole number from 0 up")
        if self.workers > self.batch_size:
            raise BadInput(f"{self.workers} workers cannot share a batch of {self.batch_size}: use fewer --workers")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"{name} is {getattr(self, name)!r}: it must be positive")

    def learning_rate_at(self, step):
        """The learning rate of step 1, 2, ...: a linear warm-up, then half a cosine down to the floor."""
        if step <= self.warm_up:
            return self.learning_rate * step / self.warm_up
        way = min(1.0, (step - self.warm_up) / max(1, self.horizon - self.warm_up))
        return self.learning_rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * way)))


def best_workers(batch_size):
    """The number of workers that serves best here: one for every core, as long as each has 25 images or more."""
    return max(1, min(cores(), batch_size // 25))


class Metrics(NamedTuple):
    """One training step: means over its batch, in nats an image; their sum bounds -log p(x)."""

    step: int
    L_x: float
    L_z: float
    learning_rate: float
    gradient_norm: float  # before clipping

    @property
    def bound(self):
        return self.L_x + self.L_z


class Diverged(BadInput):
    """The loss or its gradient is no longer finite; the parameters are still those of the step before."""


class Trainer:
    """A training run in memory: `for metrics in trainer` goes on from `trainer.step` to `recipe.steps`.

    Nothing is kept between two steps but the parameters, Adam's state and `step`: the order of the
    images and the noise of step k follow from (seed, k) alone. So a run that was stopped and goes on
    is, bit for bit, the run that was never stopped.
    """

    def __init__(self, model, images, recipe):
        if recipe.batch_size > len(images.train):
            raise BadInput(
                f"batch size {recipe.batch_size} exceeds the {len(images.train)} training images: "
                f"--batch-size {len(images.train)} would do"
            )
        if images.size != model.config.size:
            raise BadInput(f"images of (height, width, planes) {images.size} for a model of {model.config.size}")
        self.model, self.images, self.recipe = model, images, recipe
        self.adam = Adam(model.arrays().values())
        self._epoch, self._order = -1, None
        self._batch = None, None  # the last one made: its step, and what `batch` returns
        self._hands = None  # who does the work, from the first step on
        keep_memory()

    @property
    def step(self):
        """The number of steps done."""
        return self.adam.t

    def batch(self, step):
        """The images (batch, pixels) and noise (T, batch, Z) of a step, as arrays of the model's library and dtype."""
        if self._batch[0] != step:
            self._batch = step, self._make_batch(step)
        return self._batch[1]

    def _make_batch(self, step):
        recipe, config, like = self.recipe, self.model.config, self.adam.parameters[0]
        xp = array_module(like)
        epoch, k = divmod(step - 1, len(self.images.train) // recipe.batch_size)
        if epoch != self._epoch:
            rng = np.random.default_rng([recipe.seed, ORDER, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self.images.train))
        x = self.images.train[self._order[k * recipe.batch_size : (k + 1) * recipe.batch_size]]
        rng = np.random.default_rng([recipe.seed, NOISE, step])
        noise = standard_normal(xp, rng, (config.T, recipe.batch_size, config.z_size))
        if self.images.grey and recipe.binary:
            x = binarise(x, rng)
        return xp.asarray(x, like.dtype), xp.asarray(noise, like.dtype)

    @property
    def hands(self):
        """Who does the work of a step: share.Workers, or share.Alone."""
        if self._hands is None:
            recipe, on_cpu = self.recipe, array_module(self.adam.parameters[0]) is np
            if on_cpu and recipe.workers > 1:
                self._hands = Workers(self.model, self.adam, recipe.batch_size, recipe.workers)
            else:
                self._hands = Alone(self.model, self.adam, recipe.batch_size)
        return self._hands

    def advance(self):
        """Do the next step and return its Metrics; the batch after it is made meanwhile. Raises Diverged."""
        following = self.step + 2
        return self.learn(*self.batch(self.step + 1), meanwhile=lambda: self.batch(following))

    def learn(self, x, noise, meanwhile=lambda: None):
        """One step on images x (batch, pixels) under noise (T, batch, Z), arrays like those of `batch`: its Metrics.

        `meanwhile()` is done while a GPU, or the workers, work. Raises Diverged, before anything changed, for NaN or
        infinity.
        """
        recipe, step = self.recipe, self.step + 1
        try:
            with np.errstate(all="ignore"):
                L_x, L_z, norm = self.hands.gradients(x, noise, meanwhile)
                factor = clip_factor(norm, recipe.clip)
            L_x, L_z, norm = to_host(array_module(norm).stack([L_x, L_z, norm])).tolist()  # the one look at a GPU
            metrics = Metrics(step, L_x, L_z, recipe.learning_rate_at(step), norm)
            if not math.isfinite(metrics.bound + metrics.gradient_norm):
                raise Diverged(
                    f"training diverged at step {step} (L_x {metrics.L_x:.4g}, L_z {metrics.L_z:.4g}, "
                    f"gradient norm {metrics.gradient_norm:.4g}): try a smaller --learning-rate"
                )
            self.hands.update(metrics.learning_rate, factor)
        except BaseException:  # Ctrl-C, too: in a notebook that may go on, with other hands then
            self._hands = None
            raise
        return metrics

    def __iter__(self):
        while self.step < self.recipe.steps:
            yield self.advance()
