"""minidraw's training step beside the same step in PyTorch and in JAX, and beside its matrix products alone.

    python tests/benchmarks/peers.py [--preset blog|paper ...] [--rounds N] [--device cpu|gpu] [--out FILE]

All start from the same weights and see the same images and noise. Before anything is timed, the loss, every
gradient, and the losses of a few steps of training must agree with minidraw's. Every contender has a process of its
own, and they take turns, so that only one works at a time and a busy machine slows all of them alike.

A step is forward, loss, backward, clip and Adam, for a batch that is ready. minidraw takes part twice: with as many
workers as `minidraw train` has, and in one process.
In every process a Trainer makes the batches, and so tells malloc to keep freed memory.
"""

import argparse
import os
import platform
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from minidraw.backend import library, to_host, wait_for
from minidraw.bench import machine, matrix_products, peak_memory
from minidraw.draw import Draw
from minidraw.gradcheck import relative_error
from minidraw.images import mnist
from minidraw.presets import PRESETS
from minidraw.training import Trainer, best_workers

MINIDRAW, ALONE, EAGER, COMPILED, JAX = (
    "minidraw",
    "minidraw, one process",
    "PyTorch, eager",
    "PyTorch, compiled",
    "JAX, jit",
)
PRODUCTS = "matrix products alone"
FRAMEWORKS = {MINIDRAW: "numpy", ALONE: "numpy", EAGER: "torch", COMPILED: "torch", JAX: "jax", PRODUCTS: "numpy"}
LOSS_LIMIT, GRADIENT_LIMIT = 3e-6, 1e-4  # relative errors, in float32
COMPARED_STEPS = 3  # of training
PAUSE = 0.3  # seconds between two turns, in which threads that still wait for work go to sleep


class Minidraw:
    """minidraw with the two methods of a peer: what its Trainer does with a batch once it is made."""

    def __init__(self, trainer):
        self.trainer = trainer

    def loss_and_gradients(self, x, noise):
        L_x, L_z, _ = self.trainer.executor.gradients(x, noise)
        gradients = map(to_host, self.trainer.executor.last_gradients)
        named = zip(self.trainer.model.parameters, gradients, strict=True)
        return float(L_x + L_z), {name: gradient.copy() for name, gradient in named}  # the next step's have their place

    def step(self, x, noise, learning_rate):
        return self.trainer.train_step(x, noise).bound


class Contestant:
    """A contender at work, in its own process: its peer, and a Trainer to make the batches."""

    def __init__(self, contender, config, recipe, device):
        import_module(FRAMEWORKS[contender])
        images, xp = mnist(), library(device)
        workers = best_workers(recipe.batch_size) if contender == MINIDRAW and device == "cpu" else 1
        recipe = replace(recipe, workers=workers, growth=())
        self.trainer, self.steps = Trainer(Draw.initial(config, xp=xp), images, recipe), 0
        model = config, recipe, Draw.initial(config).arrays()
        if contender in (MINIDRAW, ALONE):
            self.peer = Minidraw(self.trainer)
        elif contender == PRODUCTS:
            products = matrix_products(config, recipe.batch_size, xp)
            self.peer = SimpleNamespace(step=lambda *batch: (products(), wait_for(xp)))
        elif contender == JAX:
            self.peer = import_module("jax_peer").JaxPeer(*model)
        else:
            self.peer = import_module("torch_peer").TorchPeer(*model, device, compiled=contender == COMPILED)

    def advance(self):
        """The next step of training: the seconds that it took, and its loss."""
        self.steps += 1
        x, noise = self.trainer.batch(self.steps)
        if hasattr(self.peer, "ready"):
            x, noise = self.peer.ready(x, noise)
        wait_for(self.trainer.model.xp)
        learning_rate = self.trainer.recipe.learning_rate_at(self.steps)
        start = time.perf_counter()
        loss = self.peer.step(x, noise, learning_rate)
        wait_for(self.trainer.model.xp)
        return time.perf_counter() - start, loss

    def check(self):
        """The losses of the first batch and of the first steps of training; the gradients of the first batch."""
        loss, gradients = self.peer.loss_and_gradients(*self.trainer.batch(1))
        return np.array([loss, *(self.advance()[1] for _ in range(COMPARED_STEPS))]), gradients

    def turn(self, steps):
        """The seconds of so many steps, after one that does not count."""
        return [self.advance()[0] for _ in range(steps + 1)][1:]

    def memory(self):
        """Peak memory in MiB, of minidraw's workers, too; the framework, the images and compilation included."""
        return peak_memory(self.trainer)


contestant = cache(Contestant)  # one in a process


def ask(contender, config, recipe, device, method, *args):
    """What a contender's process does for the one that asks."""
    return getattr(contestant(contender, config, recipe, device), method)(*args)


def compare(label, contender, got, want):
    """Exit with a message unless two results of `check` agree."""
    (losses, gradients), (want_losses, want_gradients) = got, want
    errors = {"the losses": relative_error(losses, want_losses) / LOSS_LIMIT}
    for name in want_gradients:
        errors[f"the gradient of {name}"] = relative_error(gradients[name], want_gradients[name]) / GRADIENT_LIMIT
    wrong = [f"{what}, {error:.1f} times the limit" for what, error in errors.items() if not error <= 1]
    if wrong:
        sys.exit(f"{label}: {contender} differs from minidraw in {'; '.join(wrong)}")


def measure(label, config, recipe, device, contenders, rounds):
    """The Markdown table of one configuration."""
    with ExitStack() as stack:
        spawn = get_context("spawn")
        pools = {contender: stack.enter_context(ProcessPoolExecutor(1, spawn)) for contender in contenders}

        def request(contender, *request):
            return pools[contender].submit(ask, contender, config, recipe, device, *request).result()

        want = request(MINIDRAW, "check")
        for contender in contenders:
            if contender not in (MINIDRAW, PRODUCTS):
                compare(label, contender, request(contender, "check"), want)
        times = {contender: [] for contender in contenders}
        for _ in range(rounds):
            for contender in contenders:
                time.sleep(PAUSE)
                times[contender] += request(contender, "turn", max(2, 100 // config.T))
        memory = {contender: request(contender, "memory") for contender in contenders}

    quartiles = {contender: np.percentile(seconds, (25, 50, 75)) * 1e3 for contender, seconds in times.items()}
    floor, minidraw = quartiles[PRODUCTS][1], quartiles[MINIDRAW][1]
    lines = [
        f"## {label}\n",
        f"Medians of {len(times[MINIDRAW])} steps in {rounds} rounds (range between the quartiles), batch "
        f"{recipe.batch_size}. Peak memory includes the framework, the images and compilation.\n",
        "| contender | ms a step | over products | over minidraw | peak MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for contender, (low, median, high) in quartiles.items():
        columns = f"{median:.1f} ({high - low:.1f}) | {median / floor:.2f} | {median / minidraw:.2f}"
        lines.append(f"| {contender} | {columns} | {memory[contender]:.0f} |")
    return "\n".join(lines)


def card():
    """The name of the GPU."""
    return library("gpu").cuda.runtime.getDeviceProperties(0)["name"].decode()


def main():
    parser = argparse.ArgumentParser(description="minidraw's training step beside the same in PyTorch and in JAX")
    parser.add_argument("--preset", nargs="+", choices=("blog", "paper"), default=("blog", "paper"))
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="turns of every contender (default: 10)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="of all contenders (default: cpu)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.md"), metavar="FILE")
    args = parser.parse_args()

    installed = {framework: find_spec(framework) is not None for framework in FRAMEWORKS.values()}
    contenders = [contender for contender, framework in FRAMEWORKS.items() if installed[framework]]
    if args.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # JAX would take most of the card's memory for itself
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "float32"  # as CuPy's and PyTorch's
        contenders.remove(ALONE)  # on a GPU there is one process anyway
    versions = ", ".join(f"{framework} {version(framework)}" for framework, there in installed.items() if there)
    python, command = platform.python_version(), shlex.join(["python", *sys.argv])
    where = machine() if args.device == "cpu" else f"{card()} and {machine()}"
    parts = [f"# {where}; Python {python}, {versions}; `{command}`"]
    parts += [f"{framework} is not installed." for framework, there in installed.items() if not there]
    for preset in args.preset:
        config, recipe = PRESETS[preset]
        configs = {preset: config}
        if preset == "blog":
            configs["blog --no-attention"] = replace(config, read_N=None, write_N=None)
        for label, config in configs.items():
            parts.append(measure(label, config, recipe, args.device, contenders, args.rounds))
            print(parts[-1] + "\n", flush=True)
    args.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
