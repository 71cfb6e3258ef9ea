"""How long a training step takes, beside the matrix products it cannot do without, and where it goes. Chapter 15."""

import json
import platform
import re
import sys
import time
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minidraw.autodiff import intercept
from minidraw.backend import library, wait_for
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.errors import WorkerLost
from minidraw.images import mnist
from minidraw.training import Recipe, Trainer
from minidraw.workers import cores, start_python

WARM_UP = 3  # steps before the clock runs
TURN = 5  # steps, and then as many times the products
FORWARD, BACKWARD = 0, 1
REST = "the rest: weights, tape, Adam"


class Timing(NamedTuple):
    """Medians over the rounds, in milliseconds; spread is the range between the quartiles."""

    preset: str
    attention: bool
    device: str
    workers: int
    step_ms: float
    step_spread_ms: float
    floor_ms: float
    floor_spread_ms: float
    ratio: float  # step over floor
    images_per_second: float
    peak_mib: float | None  # of all processes together; None but on Linux


def matrix_products(config, batch_size, xp=np):
    """A function that does the matrix products of one training step of the straightforward model, and nothing else.

    For every weight and every t the product forward, x W, and the product with the transposed weight backward, dy W^T;
    and once for every weight its gradient, one product over T * batch rows; float32, into arrays made beforehand.
    """
    rng = np.random.default_rng(0)
    T, weights = config.T, []
    for fan_in, fan_out in (shape for shape in config.shapes.values() if len(shape) == 2):
        x, dy = (xp.asarray(rng.standard_normal((T, batch_size, size), np.float32)) for size in (fan_in, fan_out))
        W = xp.asarray(rng.standard_normal((fan_in, fan_out), np.float32))
        weights.append((x, W, dy, xp.empty_like(dy[0]), xp.empty_like(x[0]), xp.empty_like(W)))

    def products():
        for t in range(T):
            for x, W, _, y, _, _ in weights:
                xp.matmul(x[t], W, out=y)
        for t in range(T):
            for _, W, dy, _, dx, _ in weights:
                xp.matmul(dy[t], W.T, out=dx)
        for x, W, dy, _, _, dW in weights:
            xp.matmul(x.reshape(-1, len(W)).T, dy.reshape(-1, W.shape[1]), out=dW)

    return products


def bench(preset, config, recipe, device="cpu", rounds=40):
    """The Timing of a configuration on MNIST: step and products in turn, so that a busy machine slows both.

    In a process of its own, so that the memory is this configuration's alone. Raises WorkerLost where that ends.
    """
    question = json.dumps([preset, asdict(config), asdict(recipe), device, rounds])
    with start_python("from minidraw.bench import _answer; _answer()", {}) as process:
        try:
            answer, _ = process.communicate(question)
        except BaseException:  # Ctrl-C, too; its workers end with it
            process.kill()
            raise
    if process.returncode:
        raise WorkerLost("the process that was timed ended unexpectedly, perhaps for lack of memory")
    return Timing(*json.loads(answer.splitlines()[-1]))


def _answer():
    preset, config, recipe, device, rounds = json.loads(sys.stdin.read())
    print(json.dumps(_bench(preset, Config(**config), Recipe(**recipe), device, rounds)))


def _bench(preset, config, recipe, device, rounds):
    xp = library(device)
    recipe = replace(recipe, growth=())  # a step with all of the model's glimpses
    trainer = Trainer(Draw.initial(config, recipe.seed, xp=xp), mnist(), recipe)
    for _ in range(WARM_UP):
        next(trainer)
    memory = peak_memory(trainer)
    products = matrix_products(config, recipe.batch_size, xp)
    products()

    def turn(work, steps):
        """The milliseconds of some steps, one after another, as in training; one more, first, does not count."""
        time.sleep(0.1)  # the threads of a product just done keep a core busy for a while, waiting for the next
        times = []
        for _ in range(steps + 1):
            wait_for(xp)
            start = time.perf_counter()
            work()
            wait_for(xp)
            times.append((time.perf_counter() - start) * 1e3)
        return times[1:]

    turns = [min(TURN, rounds - done) for done in range(0, rounds, TURN)]
    batch = trainer.batch(trainer.steps_done + 1)
    works = lambda: trainer.train_step(*batch), products
    times = np.concatenate([np.transpose([turn(work, n) for work in works]) for n in turns])
    low, (step, floor), high = np.percentile(times, (25, 50, 75), axis=0)
    spread = high - low
    return Timing(
        preset=preset,
        attention=config.read_N is not None,
        device=device,
        workers=recipe.workers,
        step_ms=float(step),
        step_spread_ms=float(spread[0]),
        floor_ms=float(floor),
        floor_spread_ms=float(spread[1]),
        ratio=float(step / floor),
        images_per_second=float(recipe.batch_size / step * 1e3),
        peak_mib=memory,
    )


def machine():
    """The processor and its number of cores, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return f"{name[1] if name else platform.machine()}, {cores()} cores"


def peak_memory(trainer):
    """The most memory in MiB that this process and its trainer's workers had resident so far; None but on Linux.

    Not getrusage's ru_maxrss: that of a new process begins at its parent's.
    """
    if not sys.platform.startswith("linux"):
        return None
    status = [Path(f"/proc/{pid}/status").read_text() for pid in ("self", *trainer.executor.pids)]
    return sum(int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) for text in status) / 1024


def profile(config, recipe, rounds=20):
    """Where a step goes, in one process on NumPy: milliseconds of (forward, backward) by name, the longest first.

    Every op that the model calls, and the rest: the weights' gradients, the tape, the clip and Adam, the batch. Medians
    over the rounds, so that a moment in which the machine did something else is laid at no op's door.
    """
    trainer = Trainer(Draw.initial(config, recipe.seed), mnist(), replace(recipe, workers=1, growth=()))
    for _ in range(WARM_UP):
        next(trainer)
    spent = defaultdict(float)  # (name, direction) -> seconds in this step

    def timed(function, name, direction):
        def run(*args, **settings):
            start = time.perf_counter()
            result = function(*args, **settings)
            spent[name, direction] += time.perf_counter() - start
            return result

        return run

    def watched(op):
        def run(*inputs, **settings):
            value, backward = timed(op, op.__name__, FORWARD)(*inputs, **settings)
            return value, timed(backward, op.__name__, BACKWARD)

        return run

    steps = []
    with intercept(watched):
        for _ in range(rounds):
            spent.clear()
            start = time.perf_counter()
            next(trainer)
            whole = time.perf_counter() - start
            steps.append({**spent, (REST, FORWARD): whole - sum(spent.values())})
    names = {name for name, _ in steps[0]}
    rows = {name: tuple(_median_ms(steps, (name, direction)) for direction in (FORWARD, BACKWARD)) for name in names}
    return dict(sorted(rows.items(), key=lambda row: (-sum(row[1]), row[0])))


def _median_ms(steps, key):
    return float(np.median([step.get(key, 0.0) for step in steps])) * 1e3
