"""Trains the models of three small studies: `python tutorial/runs/studies.py NAME [--seconds S | --steps N]`.

Two digits on 60 x 60 pixels with and without attention, for the same time; a canvas that starts grey, black, or as is
learned; house numbers in colour. Each becomes NAME.json: how it was made, the curve and the bounds; NAME-bounds.npy,
the bound of every test image, for what two models differ by is known better than each of them is; and NAME.npz, the
weights as float16. Those without attention are large: in their place NAME-pictures.npz shows some drawings.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # so that several side by side do not wait for each other
sys.path.insert(0, str(Path(__file__).parents[1]))  # where scenes.py is

import numpy as np
from make import EVERY, HERE, columns, drawing, short
from scenes import attempt, house_numbers, two_digits, whole
from tqdm import tqdm

from minidraw import bench, checkpoint
from minidraw.backend import library, wait_for
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.errors import BadInput
from minidraw.evaluation import evaluate, nats_of_each, summary
from minidraw.files import write_atomically
from minidraw.images import Images, mnist
from minidraw.training import Recipe, Trainer

TIMED, BEFORE = 40, 5  # steps of a trainer that is thrown away, and how many of them do not count
POINTS, SOME = 10, 1000  # of the validation curve, and the images that each is the mean of


class FixedStart(Draw):
    """DRAW that starts from states which nothing learns."""

    learns = ()  # the states that are learned

    def _start(self, batch, *names):
        states = zip(names, super()._start(batch, *names), strict=True)
        return [state if name in self.learns else state.value for name, state in states]  # a value has no gradient


class BlackCanvas(FixedStart):
    """c_0 is a black page: every pixel has a mean of 0.01."""

    @classmethod
    def initial(cls, config, seed=0, **where):
        model = super().initial(config, seed, **where)
        model.parameters["start/c"].value[:] = np.log(0.01 / 0.99)
        return model


class LearnedCanvas(FixedStart):
    """c_0 is learned, from zero; the LSTMs start from zeros."""

    learns = ("c",)


class Study(NamedTuple):
    """What is trained, on what, and how."""

    config: Config
    images: Callable[[], Images]
    recipe: Recipe = short
    Model: type[Draw] = Draw


def houses(count=20_000):
    """House numbers, nine tenths of them to train on; the channels are means, as in the paper."""
    colours = house_numbers(count).transpose(0, 3, 1, 2).reshape(count, -1).astype(np.float32) / 255
    return Images(*np.split(colours, [count * 18 // 20, count * 19 // 20]), A=32, B=32, channels=3)


# A grid of 10 x 10 covers a digit of 28 pixels at a stride of 3; sixteen glimpses are eight for each digit. c_0 is
# learned, as in the paper: else the first thing that a small pen has to do is to blacken a large grey page.
two = Config(T=16, read_N=10, write_N=10, z_size=50, A=60, B=60, learned_start=True)
# The paper's 12 x 12 on 54 x 54 pixels, to scale.
colour = Config(T=16, read_N=8, write_N=8, z_size=50, A=32, B=32, channels=3, learned_start=True)
page = replace(drawing, learned_start=True)  # all three are saved with their c_0, and opened like any other model
STUDIES = {
    "two-digits": Study(two, two_digits),
    "two-digits-no-attention": Study(replace(two, read_N=None, write_N=None), two_digits),
    "canvas-zero": Study(page, mnist, Model=FixedStart),
    "canvas-black": Study(page, mnist, Model=BlackCanvas),
    "canvas-learned": Study(page, mnist, Model=LearnedCanvas),
    "houses": Study(colour, houses, replace(short, binary=False)),
}


def begin(study, images, recipe, xp):
    return Trainer(study.Model.initial(study.config, recipe.seed, xp=xp), images, recipe)


def time_of_step(study, images, workers, xp):
    """The median seconds of a step, of a few dozen."""
    times = []
    trainer = begin(study, images, replace(study.recipe, steps=TIMED, workers=workers), xp)
    while trainer.steps_done < TIMED:
        start = time.perf_counter()
        next(trainer)
        wait_for(xp)
        times.append(time.perf_counter() - start)
    return float(np.median(times[BEFORE:]))


def pictures(model, images):
    """What is looked at of a model that is not kept, as uint8: 36 samples, and step by step six of them, and six images
    of `images` drawn again.
    """
    samples, again = model.sample(36).means, model.reconstruct(images[:6]).means
    shown = {"samples": samples[-1], "drawing": samples[:, :6], "reconstruction": again}
    return {name: np.rint(255 * means).astype(np.uint8) for name, means in shown.items()}


def train(name, study, steps=None, seconds=None, workers=1, device="cpu", folder=HERE):
    """Train a study for `steps`, or for as many as fit into `seconds`, and write its files into `folder`.

    The learning rate follows the number of steps, and never the clock: the same `steps` give the same weights, bit for
    bit. Raises BadInput for workers where the model does not start like DRAW, for theirs do.
    """
    if workers > 1 and study.Model is not Draw:
        raise BadInput(f"{name} is trained by 1 worker: others would not know how it starts")
    xp, images, step_time = library(device), study.images(), None
    if seconds is not None:
        step_time = time_of_step(study, images, workers, xp)
        steps = max(1, int(seconds / step_time / EVERY)) * EVERY
    steps = steps or study.recipe.steps
    recipe = replace(study.recipe, steps=steps, horizon=steps, workers=workers)
    trainer = begin(study, images, recipe, xp)
    milestones = {-(-steps * point // POINTS) for point in range(1, POINTS + 1)}
    rows, validation, used, start = [], {"step": [], "bound": []}, 0.0, time.perf_counter()
    for m in tqdm(trainer, total=steps, desc=name, mininterval=10):
        rows.append((m.L_x, m.L_z, m.gradient_norm))
        if m.step in milestones:
            used += time.perf_counter() - start  # the clock stands still while the model is evaluated
            validation["step"].append(m.step)
            validation["bound"].append(round(evaluate(trainer.model, images.validation[:SOME]).bound, 3))
            start = time.perf_counter()
    model = trainer.model
    command = f"python tutorial/runs/studies.py {name} --steps {steps} --workers {workers}"
    command += " --device gpu" * (device == "gpu")
    held_out = {split: nats_of_each(model, getattr(images, split)) for split in ("validation", "test")}
    result = {
        "command": command,
        "machine": bench.machine(),
        "device": device,
        "seconds_asked_for": seconds,
        "seconds_a_step_before": step_time,
        "seconds": round(used, 1),
        "steps": steps,
        "config": asdict(study.config),
        "recipe": asdict(recipe),
        **columns(rows),
        "validation": validation,
        "held_out": {split: summary(*nats)._asdict() for split, nats in held_out.items()},
    }
    L_x, L_z, _ = held_out["test"]
    each = (L_x[0] + L_z[0].sum(axis=0)).astype(np.float32)
    write_atomically(folder / f"{name}-bounds.npy", lambda file: np.save(file, each))
    if study.config.read_N is None:
        shown = pictures(model, images.test)
        write_atomically(folder / f"{name}-pictures.npz", lambda file: np.savez_compressed(file, **shown))
    else:
        checkpoint.save_model(folder / f"{name}.npz", model, {"images": name, "command": command})
    write_atomically(folder / f"{name}.json", lambda file: file.write(f"{json.dumps(result)}\n".encode()))
    test = result["held_out"]["test"]
    print(f"{name}: {test['bound']:.2f} +- {test['standard_error']:.2f} nats, {steps} steps, {used:.0f} seconds")


def main(argv=None):
    """Train one study; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=STUDIES, metavar="NAME", help=", ".join(STUDIES))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=whole(1, 10**7), metavar="S", help="train for about as long")
    length.add_argument("--steps", type=whole(1, 10**9), metavar="N", help="train for so many steps (default: 4000)")
    parser.add_argument("--workers", type=whole(1, 100), default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy (default: cpu)")
    args = parser.parse_args(argv)
    study = STUDIES[args.name]
    return attempt("studies.py", train, args.name, study, args.steps, args.seconds, args.workers, args.device)


if __name__ == "__main__":
    sys.exit(main())
