"""Trains the models and curves that the chapters look at: `python tutorial/runs/make.py NAME ...`, or `all`.

Each becomes NAME.npz, the weights as float16 (not for the three curves of chapter 12), and NAME.json, a row for every
50 steps. Two cores take a minute or two for each of the small ones, half an hour for each of the two long ones.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # so that two of these side by side do not wait for each other

import numpy as np
from tqdm import tqdm

from minidraw import checkpoint
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.images import mnist
from minidraw.presets import PRESETS
from minidraw.training import Recipe, Trainer

HERE = Path(__file__).parent
EVERY = 50  # steps that one row of a curve sums up

small = Config(T=1, read_N=None, write_N=None, enc_size=64, dec_size=64)
drawing = Config(enc_size=128, dec_size=128)  # the blog's but for its 256 units
short = Recipe(steps=4_000, horizon=4_000)
blog, blog_recipe = PRESETS["blog"]
RUNS = {
    "T1": (small, short),  # chapter 8, and 9
    "T2": (replace(small, T=2), short),  # chapter 9
    "T4": (replace(small, T=4), short),
    "T8": (replace(small, T=8), short),
    "T1-z80": (replace(small, z_size=80), short),  # as many latents as T8, all at once
    "T8-blind": (replace(small, T=8), short),  # it never sees its own canvas
    "fresh-noise": (drawing, short),  # chapter 14
    "shared-noise": (drawing, short),
    "quick": PRESETS["quick"],  # chapter 12
    "blog": (blog, blog_recipe),
    "blog-no-attention": (replace(blog, read_N=None, write_N=None), blog_recipe),
}
CURVES_ONLY = ("quick", "blog", "blog-no-attention")


class SharedNoise(Trainer):
    """The blog's noise: drawn once for an image, and used again at every t. Chapter 14 shows what this does."""

    def batch(self, step):
        x, noise = super().batch(step)
        return x, np.repeat(noise[:1], len(noise), axis=0)


class Blind(Draw):
    """DRAW whose error image is always that of a blank canvas, x - 1/2: chapter 9."""

    def _read(self, x, x_hat, h_dec):
        return super()._read(x, x - np.float32(0.5), h_dec)


def columns(rows):
    """(L_x, L_z, gradient norm) of each step as columns for a file: means of EVERY steps, or of the last few."""
    ends = range(EVERY, len(rows) + EVERY, EVERY)
    L_x, L_z, norm = np.array([np.mean(rows[end - EVERY : end], axis=0) for end in ends]).T.round(3).tolist()
    return {"step": [min(end, len(rows)) for end in ends], "L_x": L_x, "L_z": L_z, "gradient_norm": norm}


def make(name):
    config, recipe = RUNS[name]
    Run = SharedNoise if name == "shared-noise" else Trainer
    Model = Blind if name == "T8-blind" else Draw
    trainer = Run(Model.initial(config, recipe.seed), mnist(), recipe)
    rows = []
    for m in tqdm(trainer, total=recipe.steps, desc=name, mininterval=10):
        rows.append((m.L_x, m.L_z, m.gradient_norm))
    curve = {"command": f"python tutorial/runs/make.py {name}"} | columns(rows)
    (HERE / f"{name}.json").write_text(json.dumps(curve) + "\n", encoding="utf-8")
    if name not in CURVES_ONLY:
        checkpoint.save_model(HERE / f"{name}.npz", trainer.model, {"images": "mnist", "command": curve["command"]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=[*RUNS, "all"], metavar="NAME", help=", ".join([*RUNS, "all"]))
    names = parser.parse_args().names
    for name in RUNS if "all" in names else names:
        make(name)
