"""Measures what chapter 15 tells: `python tutorial/runs/speed.py`, five minutes on a machine that does nothing else.

The training step of `blog` with the ops as the chapters write them, and then with one of the library's ops after the
other in their place, all in turn; the same without attention, with and without the half of the work that never changes;
the step at several batch sizes; and the profile of the library's step. Written to speed.json.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from minidraw import bench, data, draw
from minidraw.autodiff import Node, Tensor, backward, primitive
from minidraw.ops import affine, filterbank
from minidraw.ops.elementwise import concat
from minidraw.presets import PRESETS
from minidraw.share import gradients_of
from minidraw.train import Recipe, Trainer, best_workers

ROUNDS, TURN = 20, 4


@primitive
def plain_affine(x, W, b):
    """The affine map, but with every one of its weight's gradients multiplied out at once, as in chapter 3."""
    y, library_backward = affine.maths(x, W, b)

    def backward(dy):
        dx, factors, db = library_backward(dy)
        return dx, factors.dense(), db

    return y, backward


@primitive
def plain_filterbank(p, *, N, A, B):
    """Chapter 10's filters."""
    sigma2, delta, gamma = np.exp(p[:, 2]), (max(A, B) - 1) / (N - 1) * np.exp(p[:, 3]), np.exp(p[:, 4])
    offset = (np.arange(N) - (N - 1) / 2).astype(p.dtype)
    sides = []
    for k, size in ((0, A), (1, B)):
        a = np.arange(size, dtype=p.dtype)
        mu = ((size - 1) / 2 + (size + 1) / 2 * p[:, k])[:, None] + offset * delta[:, None]
        nearest = np.clip(np.rint(mu), 0, size - 1)
        F = np.exp(-((a - mu[..., None]) ** 2 - ((nearest - mu) ** 2)[..., None]) / (2 * sigma2[:, None, None]))
        sides.append((a, mu, F / F.sum(axis=-1, keepdims=True)))

    def backward(dF_x, dF_y, dgamma):
        dp = np.zeros_like(p)
        for k, ((a, mu, F), dF) in enumerate(zip(sides, (dF_x, dF_y), strict=True)):

            def cov(w, F=F, dF=dF):
                return (F * dF * w).sum(axis=-1) - (F * dF).sum(axis=-1) * (F * w).sum(axis=-1)

            dmu = cov(a) / sigma2[:, None]
            dp[:, k] = (len(a) + 1) / 2 * dmu.sum(axis=1)
            dp[:, 2] += (cov(a**2) / (2 * sigma2[:, None]) - mu * dmu).sum(axis=1)
            dp[:, 3] += (dmu * offset * delta[:, None]).sum(axis=1)
        dp[:, 4] = dgamma * gamma
        return dp

    return (sides[0][2], sides[1][2], gamma), backward


class PlainEye(draw.Draw):
    """DRAW without the trick of (9.9): the whole [x, x_hat] is multiplied in every step."""

    def _whole_image(self, x):
        def eye(c, window, h_dec, h_enc):
            return self._affine("encoder", concat(Tensor(x), draw.error_image(x, c), h_dec, h_enc))

        return eye


def in_turn(works):
    """The median milliseconds of each work (name -> (patches of minidraw.draw, function)), all in turn."""
    times = {name: [] for name in works}
    library = {name: getattr(draw, name) for name in ("affine", "filterbank")}
    for _ in range(ROUNDS):
        for name, (patches, work) in works.items():
            vars(draw).update(library | patches)
            time.sleep(0.1)
            for k in range(TURN + 1):
                start = time.perf_counter()
                work()
                if k:
                    times[name].append((time.perf_counter() - start) * 1e3)
    vars(draw).update(library)
    return {name: round(float(np.median(t)), 1) for name, t in times.items()}


def tape():
    """The nodes of a step of `blog` without Adam, and the microseconds that the tape itself takes for one."""
    config, _ = PRESETS["blog"]
    x, noise = np.zeros((1, config.pixels), np.float32), np.zeros((config.T, 1, config.z_size), np.float32)
    created = Node("first", [], None, []).created
    gradients_of(draw.Draw.initial(config), x, noise, 1)
    nodes, one, times = Node("last", [], None, []).created - created - 1, np.ones(()), []

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
    print("measuring: some five minutes", flush=True)
    images = data.mnist()
    config, recipe = PRESETS["blog"]
    one = Recipe(**(vars(recipe) | {"workers": 1}))
    workers = best_workers(recipe.batch_size)

    def step_of(config=config, recipe=one, Model=draw.Draw):
        trainer = Trainer(Model.initial(config), images, recipe)
        batch = trainer.batch(1)
        return lambda: trainer.learn(*batch)

    plain = {"affine": plain_affine, "filterbank": plain_filterbank}
    stages = {"as the chapters write it": plain}
    for label, change in [
        ("one product for a weight used T times", {"affine": affine}),
        ("filterbank by moments", {"filterbank": filterbank}),
    ]:
        plain = plain | change
        stages[label] = plain
    step = step_of()
    works = {label: (patches, step) for label, patches in stages.items()}
    works[f"{workers} processes share the work"] = {}, step_of(recipe=replace(one, workers=workers))
    works["its matrix products alone"] = {}, bench.matrix_products(config, recipe.batch_size)
    savings = in_turn(works)

    whole = replace(config, read_N=None, write_N=None)
    half = in_turn(
        {
            "[x, x_hat] in every step": ({}, step_of(whole, Model=PlainEye)),
            "the constant half once": ({}, step_of(whole)),
        }
    )
    batches = {}
    for batch_size in (10, 25, 50, 100, 200, 400):
        batches[str(batch_size)] = ({}, step_of(recipe=replace(one, batch_size=batch_size)))
    batches = in_turn(batches)
    shares = {op: [round(t, 1) for t in both] for op, both in bench.profile(config, one).items()}
    result = {
        "command": "python tutorial/runs/speed.py",
        "machine": bench.machine(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "savings_ms": savings,
        "without_attention_ms": half,
        "by_batch_ms": batches,
        "profile_ms": shares,
        "tape": tape(),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
