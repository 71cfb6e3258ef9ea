"""A run folder: what is in it, how training fills it, how it is taken up again.

checkpoint.npz    everything needed to use the model or to go on training it (checkpoint.py)
metrics.jsonl     a JSON object a line: every step's Metrics, and the bound on validation images now and then
samples.png       digits from the prior, redrawn as training goes on
loss.png          the loss curves, likewise
"""

import contextlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from minidraw import checkpoint, data
from minidraw.draw import Draw
from minidraw.errors import BadInput
from minidraw.evaluate import evaluate
from minidraw.train import Metrics, Trainer

VALIDATE_EVERY = 500  # steps; pictures are redrawn then, too
VALIDATION_IMAGES = 1000
SAVE_EVERY = 20  # seconds


def new_folder(stem):
    """The first of STEM-1, STEM-2, ... that does not exist yet."""
    number = 1
    while Path(f"{stem}-{number}").exists():
        number += 1
    return Path(f"{stem}-{number}")


def images_of(about, binary=True):
    """The Images that `about`, from a checkpoint, speaks of: the bundled MNIST, or those at its path.

    Raises BadInput where they are no longer those that the run was trained on.
    """
    images = data.mnist() if about.get("data") is None else data.load(about["data"], binary)
    if images.checksum != about.get("checksum"):
        raise BadInput(f"{about.get('data') or 'the bundled MNIST'}: no longer the images this run was trained on")
    return images


class Run:
    """A Trainer and the folder it writes to."""

    def __init__(self, folder, trainer, about):
        self.folder, self.trainer, self.about = Path(folder), trainer, about
        self.checkpoint, self.metrics = self.folder / "checkpoint.npz", self.folder / "metrics.jsonl"

    @classmethod
    def new(cls, folder, config, recipe, images, data_path=None, xp=np):
        """Begin a run of a fresh model in `folder`, which must not exist or be empty. Raises BadInput, OSError."""
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(f"{folder} exists already: choose another --out, or go on with --resume {folder}")
        trainer = Trainer(Draw.initial(config, recipe.seed, xp=xp), images, recipe)
        path = None if data_path is None else os.path.abspath(data_path)
        run = cls(folder, trainer, {"data": path, "checksum": images.checksum})
        made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run.save()
        except OSError:
            if made and folder.is_dir():  # no half-made run stays behind
                folder.rmdir()
            raise
        return run

    @classmethod
    def resume(cls, folder, steps=None, xp=np):
        """Take up the run in `folder` where its checkpoint left it; `steps`, if given, is its new total."""
        saved = checkpoint.load_run(folder, xp)
        if saved.recipe is None:
            raise BadInput(f"{folder}: a model without its training state cannot be resumed")
        if steps is not None and steps <= saved.step:
            raise BadInput(f"{folder} has done {saved.step} steps already: --steps is the new total, ask for more")
        images = images_of(saved.about, saved.recipe.binary)
        recipe = saved.recipe if steps is None else replace(saved.recipe, steps=steps)
        trainer = Trainer(saved.model, images, recipe)
        trainer.adam.restore(saved.step, saved.adam["m"].values(), saved.adam["v"].values())
        run = cls(folder, trainer, saved.about)
        run._forget_after(saved.step)
        return run

    def _lines(self):
        """The whole lines of the metrics file, parsed. Raises BadInput for one that training did not write."""
        if not self.metrics.exists():
            return []
        lines = []
        with open(self.metrics, encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n"):
                    break  # torn by a kill
                try:
                    lines.append(json.loads(line))
                    complete = lines[-1].keys() >= {"step", "validation"} or lines[-1].keys() >= set(Metrics._fields)
                except (ValueError, AttributeError):
                    complete = False
                if not complete:
                    raise BadInput(f"{self.metrics}: line {number} is damaged: mend or remove it")
        return lines

    def _forget_after(self, step):
        """Drop what the metrics file says of steps after the checkpoint: they will be done again."""
        kept = "".join(json.dumps(line) + "\n" for line in self._lines() if line["step"] <= step)
        checkpoint.write_atomically(self.metrics, lambda file: file.write(kept.encode()))

    def save(self):
        """Write the checkpoint."""
        checkpoint.save(self.checkpoint, self.trainer, self.about)

    def train(self):
        """Yield the Metrics of every step, and keep the folder up to date. Raises train.Diverged.

        The consumer may stop at any time; call `save` then.
        """
        saved = time.monotonic()
        with open(self.metrics, "a", encoding="utf-8", newline="\n") as log:

            def write(line):
                log.write(json.dumps(line) + "\n")

            for metrics in self.trainer:
                write(metrics._asdict())
                last = metrics.step == self.trainer.recipe.steps
                milestone = metrics.step % VALIDATE_EVERY == 0
                if milestone:
                    write({"step": metrics.step, "validation": self._validation_bound()})
                if last or milestone or time.monotonic() - saved > SAVE_EVERY:
                    log.flush()
                    os.fsync(log.fileno())  # the metrics first: a checkpoint never speaks of steps they lack
                    self.save()
                    saved = time.monotonic()
                if last or milestone:
                    self.draw()
                yield metrics

    def _validation_bound(self):
        images = self.trainer.images.validation[:VALIDATION_IMAGES]
        return evaluate(self.trainer.model, images, seed=self.trainer.recipe.seed).bound

    def history(self):
        """The metrics file as columns for plots.loss_curves."""
        steps, validation = [], ([], [])
        for line in self._lines():
            if "validation" in line:
                validation[0].append(line["step"])
                validation[1].append(line["validation"])
            else:
                steps.append(line)
        return {name: [line[name] for line in steps] for name in ("step", "L_x", "L_z")} | {"validation": validation}

    def draw(self):
        """Redraw samples.png and loss.png."""
        from minidraw import plots  # here, for matplotlib takes its time to import

        step = self.trainer.step
        figures = {
            "samples.png": plots.grid(self.trainer.model.sample(36).means[-1], f"Samples after {step} steps"),
            "loss.png": plots.loss_curves(self.history(), f"Training, {step} steps"),
        }
        for name, figure in figures.items():
            with contextlib.suppress(PermissionError):  # Windows, while a viewer holds the picture: the next one then
                checkpoint.write_atomically(self.folder / name, lambda file, f=figure: f.savefig(file, format="png"))
