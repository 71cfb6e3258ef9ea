"""Trains `paper` in several ways, each for the same time: `python tutorial/runs/recipes.py [--seconds S]`.

First it measures how long a step takes with each number of glimpses, and each batch size. So it knows how many steps
of a recipe fit into the time, and the rate can follow the steps, and never the clock. A row of recipes.json says of a
recipe what it is, how it went, and what each of 1,000 validation images costs with all 64 glimpses: by the weights at
the end, and by their running average. Rows that are there already stay: what was interrupted goes on.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # so that another training beside it does not wait for this one
sys.path.insert(0, str(Path(__file__).parents[1]))  # where scenes.py is

import numpy as np
from make import EVERY, HERE, columns
from scenes import attempt, whole
from studies import Study, time_of_step
from tqdm import tqdm

from minidraw import bench
from minidraw.draw import Draw
from minidraw.errors import BadInput
from minidraw.evaluation import nats_of_each
from minidraw.files import write_atomically
from minidraw.images import mnist
from minidraw.presets import PRESETS
from minidraw.training import Trainer

CONFIG, PRESET = PRESETS["paper"]
CHOICES = {
    "as the preset": {},
    "64 steps from the start": {"growth": ()},
    "8 steps first": {"growth": ((0.25, 8), (0.5, 16), (0.75, 32))},
    "half the rate": {"learning_rate": PRESET.learning_rate / 2},
    "twice the rate": {"learning_rate": PRESET.learning_rate * 2},
    "the rate falls from the start": {"hold": 0.0},
    "the rate never falls": {"hold": 1.0},
    "batches of 50": {"batch_size": 50},
}
DECAY = 0.999  # of the running average
SOME = 1000  # validation images


def nats(model, x):
    """What each of the images x costs: a list, rounded."""
    L_x, L_z, _ = nats_of_each(model, x)
    return (L_x[0] + L_z[0].sum(axis=0)).round(2).tolist()


def seconds_a_step(T, batch_size, images, known):
    """Of a training step with T glimpses, as `studies` measures it; `known` remembers what was measured."""
    if (T, batch_size) not in known:
        study = Study(replace(CONFIG, T=T), mnist, replace(PRESET, growth=(), batch_size=batch_size))
        known[T, batch_size] = time_of_step(study, images, workers=1, xp=np)
    return known[T, batch_size]


def steps_in(seconds, recipe, images, known):
    """How many steps of `recipe` fit into the time: (18.3), with the measured times."""
    ends = [*(share for share, _ in recipe.growth), 1.0]
    shares = np.diff([0.0, *ends])
    times = [seconds_a_step(T, recipe.batch_size, images, known) for T in [*(T for _, T in recipe.growth), CONFIG.T]]
    return max(1, int(seconds / (shares @ times) / EVERY)) * EVERY


def train(name, seconds, images, known):
    """The row of one choice."""
    recipe = replace(PRESET, workers=1, **CHOICES[name])
    steps = steps_in(seconds, recipe, images, known)
    recipe = replace(recipe, steps=steps, horizon=steps)
    trainer = Trainer(Draw.initial(CONFIG, recipe.seed), images, recipe)
    average = {name: array.copy() for name, array in trainer.model.arrays().items()}
    rows, start = [], time.perf_counter()
    for m in tqdm(trainer, total=steps, desc=name, mininterval=10):
        rows.append((m.L_x, m.L_z, m.gradient_norm))
        for mean, array in zip(average.values(), trainer.model.arrays().values(), strict=True):
            mean += np.float32(1 - DECAY) * (array - mean)
    used, some = time.perf_counter() - start, images.validation[:SOME]
    return {
        "recipe": asdict(recipe),
        "seconds": round(used, 1),
        "nats": nats(trainer.model, some),
        "nats_averaged": nats(Draw(CONFIG, average), some),
        **columns(rows),
    }


def compare(seconds, path=HERE / "recipes.json", images=None):
    """Train all choices, and write `path` after each; `images` are others than the digits, for a test."""
    images, known = images or mnist(), {}
    about = {"command": f"python tutorial/runs/recipes.py --seconds {seconds}", "machine": bench.machine()}
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**about, "choices": {}}
    if any(found.get(key) != about[key] for key in about):
        raise BadInput(f"{path} was measured with another --seconds, or on another machine: remove it")
    for name in CHOICES:
        if name not in found["choices"]:
            found["choices"][name] = row = train(name, seconds, images, known)
            write_atomically(path, lambda file: file.write(f"{json.dumps(found)}\n".encode()))
            ends = [f"{np.mean(row[key]):.2f}" for key in ("nats", "nats_averaged")]
            print(f"{name}: {row['recipe']['steps']} steps, {ends[0]} nats, {ends[1]} averaged")


def main(argv=None):
    """Compare all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=whole(1, 10**7), default=720, metavar="S", help="for each (default: 720)")
    return attempt("recipes.py", compare, parser.parse_args(argv).seconds)


if __name__ == "__main__":
    sys.exit(main())
