"""The training loop: one seed, one result; it yields its metrics and draws nothing. Chapter 12."""

import math
import weakref
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minidraw.adam import Adam, clip_factor
from minidraw.backend import standard_normal, to_host
from minidraw.cuda_graph import CudaGraph
from minidraw.draw import Draw
from minidraw.errors import BadInput, Diverged
from minidraw.images import binarise
from minidraw.workers import InProcess, WorkerPool, cores, uninterrupted

ORDER, NOISE = 1, 2  # the streams of random numbers that a run draws from its seed
MOST_WORKERS = 256


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Raises BadInput for numbers that cannot be."""

    steps: int = 10_000
    batch_size: int = 100
    learning_rate: float = 1e-3  # at its height
    warm_up: int = 200  # steps from 0 to the height, along a line
    hold: float = 0.0  # the share of `horizon` up to which the height is held, before the decay begins
    horizon: int = 10_000  # the step at which the cosine decay ends; later steps stay at `floor`
    floor: float = 0.05  # of the height
    growth: tuple = ()  # pairs (share of `horizon`, T): up to there, train with T glimpses; then with the model's own
    clip: float = 5.0  # the largest global norm of a gradient
    seed: int = 0
    binary: bool = True  # grey images are binarised afresh each time they are seen
    workers: int = 1  # processes that share a batch on the CPU; the rounding depends on their number, nothing else

    def __post_init__(self):
        for name in ("steps", "batch_size", "horizon", "workers"):
            if not _whole(getattr(self, name)) or getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)!r}: it must be a whole number from 1 up", name)
        for name in ("seed", "warm_up"):
            if not _whole(getattr(self, name)) or getattr(self, name) < 0:
                raise BadInput(f"{name} is {getattr(self, name)!r}: it must be a whole number from 0 up", name)
        if self.workers > MOST_WORKERS:
            raise BadInput(f"workers is {self.workers}: {MOST_WORKERS} at the most", "workers")
        if self.workers > self.batch_size:
            raise BadInput(f"{self.workers} workers cannot share a batch of {self.batch_size}: use fewer", "workers")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"{name} is {getattr(self, name)!r}: it must be positive", name)
        for name in ("hold", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"{name} is {getattr(self, name)!r}: it must lie in [0, 1]", name)
        growth = tuple((float(share), T) for share, T in self.growth)  # lists, where it comes from a file
        object.__setattr__(self, "growth", growth)
        shares = [share for share, _ in growth]
        if shares != sorted(shares) or not all(0 < share <= 1 and _whole(T) and T > 0 for share, T in growth):
            raise BadInput(f"growth is {growth}: pairs (share, T) with rising shares in (0, 1] and whole T from 1 up")

    def T_at(self, step, T):
        """The number of glimpses that step 1, 2, ... trains with, of a model that has `T` in the end."""
        return next((early for share, early in self.growth if step <= share * self.horizon), T)

    def learning_rate_at(self, step):
        """The learning rate of step 1, 2, ...: a linear warm-up, the height, then half a cosine down to the floor."""
        if step <= self.warm_up:
            return self.learning_rate * step / self.warm_up
        start = max(self.warm_up, self.hold * self.horizon)
        way = min(1.0, max(0.0, step - start) / max(1.0, self.horizon - start))
        return self.learning_rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * way)))


def _whole(number):
    return isinstance(number, int) and not isinstance(number, bool)


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


class Trainer:
    """A training run in memory, an iterator: `next(trainer)` does a step, and a loop goes on to `recipe.steps`.

    Nothing is kept between two steps but the parameters, Adam's state and `steps_done`: the order of the images and
    the noise of step k follow from (seed, k) alone. So a run that was stopped and goes on is, bit for bit, the run
    that was never stopped. A step is done whole or not at all: Ctrl-C waits while the parameters change.

    One Trainer at a time trains a model: a new one takes it over. A deep copy is another run, with a model of its own.
    """

    def __init__(self, model, images, recipe):
        """Of a Draw, Images and a Recipe. Raises BadInput where they do not fit together."""
        if recipe.batch_size > len(images.train):
            raise BadInput(
                f"batch_size {recipe.batch_size} exceeds the {len(images.train)} training images", "batch_size"
            )
        if images.shape != model.config.image_shape:
            raise BadInput(
                f"images of (height, width, channels) {images.shape} for a model of {model.config.image_shape}"
            )
        if any(T > model.config.T for _, T in recipe.growth):
            raise BadInput(f"growth {recipe.growth} goes beyond the model's T, {model.config.T}")
        self.model, self.images, self.recipe = model, images, recipe
        self.adam = Adam(model.arrays().values())
        self._epoch, self._order = -1, None
        self._executor = None
        model.trained_by = weakref.ref(self)

    def __deepcopy__(self, memo):
        model = Draw(self.model.config, {name: array.copy() for name, array in self.model.arrays().items()})
        copy = Trainer(model, self.images, self.recipe)
        copy.adam.restore(self.adam.t, *([array.copy() for array in arrays] for arrays in (self.adam.m, self.adam.v)))
        return copy

    @property
    def steps_done(self):
        return self.adam.t

    def batch(self, step):
        """The images (batch, pixels) and noise (T, batch, Z) of a step.

        They are arrays of the model's library and dtype.
        """
        recipe, model = self.recipe, self.model
        epoch, k = divmod(step - 1, len(self.images.train) // recipe.batch_size)
        if epoch != self._epoch:
            rng = np.random.default_rng([recipe.seed, ORDER, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self.images.train))
        x = self.images.train[self._order[k * recipe.batch_size : (k + 1) * recipe.batch_size]]
        rng = np.random.default_rng([recipe.seed, NOISE, step])
        T = recipe.T_at(step, model.config.T)
        noise = standard_normal(model.xp, rng, (T, recipe.batch_size, model.config.z_size))
        if self.images.grey and recipe.binary:
            x = binarise(x, rng)
        return model.asarray(x), model.asarray(noise)

    @property
    def executor(self):
        """What does the work of a step: workers.InProcess, a workers.WorkerPool, or on a GPU a cuda_graph.CudaGraph."""
        if self._executor is None:
            on_cpu = WorkerPool if self.recipe.workers > 1 else InProcess
            kind = on_cpu if self.model.xp is np else CudaGraph
            self._executor = kind(self.model, self.adam, self.recipe)
        return self._executor

    def train_step(self, x, noise):
        """One step on images x (batch, pixels) under noise (T, batch, Z): its Metrics.

        Both are arrays like those of `batch`. Raises BadInput for others, Diverged for
        NaN or infinity, and WorkerLost, each before anything changed.
        """
        recipe, step, xp = self.recipe, self.steps_done + 1, self.model.xp
        self._check(x, noise)
        try:
            with np.errstate(all="ignore"):
                L_x, L_z, norm = self.executor.gradients(x, noise)
                factor = clip_factor(norm, recipe.clip)
                numbers = xp.stack([L_x, L_z, norm, x.min(), x.max()])
            L_x, L_z, norm, darkest, brightest = to_host(numbers).tolist()  # the one look at a GPU
            if not (darkest >= 0 and brightest <= 1):
                raise BadInput(f"x holds values from {darkest:.4g} to {brightest:.4g}: they must lie in [0, 1]")
            metrics = Metrics(step, L_x, L_z, recipe.learning_rate_at(step), norm)
            if not math.isfinite(metrics.bound + metrics.gradient_norm):
                raise Diverged(
                    f"training diverged at step {step} (L_x {metrics.L_x:.4g}, L_z {metrics.L_z:.4g}, "
                    f"gradient norm {metrics.gradient_norm:.4g}): try a smaller learning rate",
                    "learning_rate",
                )
            with uninterrupted():
                self.executor.update(factor, metrics.learning_rate)
        except BaseException:  # Ctrl-C, too: in a notebook that may go on, with another executor then
            self._executor = None
            raise
        return metrics

    def _check(self, x, noise):
        """Raise BadInput unless a step on x and noise would be one of this model's training."""
        self.model.check(x, noise)
        if len(x) != self.recipe.batch_size:
            raise BadInput(f"a batch of {len(x)} images, and the recipe has a batch_size of {self.recipe.batch_size}")
        if len(noise) > self.model.config.T:
            raise BadInput(f"noise for {len(noise)} glimpses, and the model has a T of {self.model.config.T}")
        if self.model.trained_by() is not self:
            raise BadInput("another Trainer has taken this model over: go on with that one, or make a new one")
        for (name, tensor), array in zip(self.model.parameters.items(), self.adam.parameters, strict=True):
            if tensor.value is not array:
                raise BadInput(
                    f"parameter {name} was replaced in training: write into its array, or make a new Trainer"
                )

    def __iter__(self):
        return self

    def __next__(self):
        """Do the next step and return its Metrics. Raises as `train_step` does."""
        if self.steps_done >= self.recipe.steps:
            raise StopIteration
        return self.train_step(*self.batch(self.steps_done + 1))
