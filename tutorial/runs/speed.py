"""Measures what chapter 15 tells: `python tutorial/runs/speed.py`, ten minutes on a machine that does nothing else.

Every trick of the library beside the plain form that it replaces, in turn: one op after the other of `blog` as the
chapters write them, then the library's; the work shared by processes; and without attention, the half of the work that
never changes. Then the step at several batch sizes, the tape, and the profile of the library's step. Written to
speed.json.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from minidraw import adam, bench, images
from minidraw.autodiff import Node, Tensor, backward, intercept, primitive
from minidraw.draw import Draw
from minidraw.objective import nats_and_gradients
from minidraw.ops.affine import affine, plain_affine
from minidraw.ops.attention import filterbank, plain_filterbank
from minidraw.ops.elementary import concat
from minidraw.presets import PRESETS
from minidraw.training import Trainer, best_workers

ROUNDS, TURN = 10, 10  # a hundred steps of each
WHOLE = 2**62  # a block that holds any array
PLAIN = {affine.on_arrays: plain_affine.on_arrays, filterbank.on_arrays: plain_filterbank.on_arrays}


class WholeGlimpse(Draw):
    """DRAW without (9.9): without attention, the whole of [x, x_hat] is multiplied in every step."""

    def _encoder(self, x):
        return self.parameters["encoder/w"], self.parameters["encoder/b"]

    def _read(self, x, x_hat, h_dec):
        return concat(x, x_hat), None  # (17)


def step_of(config, recipe, plain=(), Model=Draw, block=adam.BLOCK):
    """A function that does one training step on one batch, with the plain forms of some ops, and Adam in blocks."""
    trainer = Trainer(Model.initial(config), images.mnist(), recipe)
    batch = trainer.batch(1)
    chosen = {op: PLAIN[op] for op in plain}

    def step():
        adam.BLOCK = block
        with intercept(lambda op: chosen.get(op, op)):
            trainer.train_step(*batch)

    return step


def times_of(work):
    """The milliseconds of a turn: some calls, one after another; one more, first, does not count."""
    time.sleep(0.1)
    times = []
    for _ in range(TURN + 1):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return times[1:]


def in_turn(works):
    """The milliseconds of each of `works`, functions by name, all in turn: lower quartiles, for what is in the way of a
    step only makes it longer.
    """
    times = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name] += times_of(work)
    return {name: round(float(np.percentile(t, 25)), 2) for name, t in times.items()}


def tape():
    """The nodes of a step of `blog` without Adam, and the microseconds that the tape itself takes for one."""
    config, _ = PRESETS["blog"]
    x, noise = np.zeros((1, config.pixels), np.float32), np.zeros((config.T, 1, config.z_size), np.float32)
    model = Draw.initial(config)
    created = Node("first", (), None, []).created
    nats_and_gradients(model, x, noise, 1)
    nodes, one, times = Node("last", (), None, []).created - created - 1, np.ones(()), []

    @primitive
    def nothing(a, b):
        return one, lambda dy: (dy, dy)

    for _ in range(30):
        start = time.perf_counter()
        leaf = last = Tensor(one)
        for _ in range(1000):
            last = nothing(last, leaf)
        backward(last, [leaf])
        times.append((time.perf_counter() - start) * 1e3)  # milliseconds a thousand: microseconds for one
    return {"nodes": nodes, "us_a_node": round(float(np.median(times)), 1)}


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("measuring: some ten minutes", flush=True)
    config, recipe = PRESETS["blog"]
    one, workers = replace(recipe, workers=1), best_workers(recipe.batch_size)
    savings = in_turn(
        {
            "as the chapters write it": step_of(config, one, PLAIN, block=WHOLE),
            "one product for a weight used T times": step_of(config, one, [filterbank.on_arrays], block=WHOLE),
            "filterbank by moments": step_of(config, one, block=WHOLE),
            "Adam in blocks": step_of(config, one),
            f"{workers} processes share the work": step_of(config, replace(one, workers=workers)),
            "its matrix products alone": bench.matrix_products(config, recipe.batch_size),
        }
    )
    whole = replace(config, read_N=None, write_N=None)
    half = in_turn(
        {
            "[x, x_hat] in every step": step_of(whole, one, Model=WholeGlimpse),
            "the constant half once": step_of(whole, one),
        }
    )
    batches = in_turn(
        {str(size): step_of(config, replace(one, batch_size=size)) for size in (10, 25, 50, 100, 200, 400)}
    )
    result = {
        "command": "python tutorial/runs/speed.py",
        "machine": bench.machine(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "savings_ms": savings,
        "without_attention_ms": half,
        "by_batch_ms": batches,
        "profile_ms": {op: [round(t, 2) for t in both] for op, both in bench.profile(config, one).items()},
        "tape": tape(),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
