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

from minidraw import checkpoint
from minidraw.draw import Draw
from minidraw.errors import BadInput
from minidraw.evaluation import evaluate
from minidraw.files import locked, open_file, remove_partial_files, write_atomically
from minidraw.images import load_images, mnist
from minidraw.training import Metrics, Trainer

VALIDATE_EVERY = 500  # steps; pictures are redrawn then, too
VALIDATION_IMAGES = 1000
SAVE_EVERY = 20  # seconds
LOCK = ".lock"


def new_folder(stem, suffix=""):
    """The first of STEM-1, STEM-2, ... that does not exist yet; with a suffix, the name for a file."""
    number = 1
    while Path(f"{stem}-{number}{suffix}").exists():
        number += 1
    return Path(f"{stem}-{number}{suffix}")


def images_of(about, binary=True):
    """The Images that `about`, from a checkpoint, speaks of: the bundled MNIST, or those at its path.

    Raises BadInput where they are no longer those that the run was trained on.
    """
    images = mnist() if about.get("data") is None else load_images(about["data"], binary)
    if images.checksum != about.get("checksum"):
        raise BadInput(f"{about.get('data') or 'the bundled MNIST'}: no longer the images this run was trained on")
    return images


def _left_behind(path):
    """Whether a file is what a process may leave that was killed before it saved anything."""
    return path.name == LOCK or path.suffix == ".partial"


def _state_of(path):
    """What tells one state of a file from another; None where there is none."""
    if not path.exists():
        return None
    about = os.stat(path)
    return about.st_mtime_ns, about.st_ino, about.st_size


class Run:
    """A Trainer and the folder it writes to, which one process at a time may do."""

    def __init__(self, folder, trainer, about):
        self.folder, self.trainer, self.about = Path(folder), trainer, about
        self.checkpoint, self.metrics = self.folder / "checkpoint.npz", self.folder / "metrics.jsonl"
        self._holds_lock, self._known = False, None  # _known: the checkpoint on the disk, as this object left it

    @classmethod
    def new(cls, folder, config, recipe, images, data_path=None, xp=np):
        """Begin a run of a fresh model in `folder`, which must not hold anything yet. Raises BadInput, OSError."""
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(not _left_behind(path) for path in folder.iterdir())):
            raise BadInput(f"{folder} exists already: choose another folder, or go on with its run", "out", "resume")
        trainer = Trainer(Draw.initial(config, recipe.seed, xp=xp), images, recipe)
        path = None if data_path is None else os.path.abspath(data_path)
        run = cls(folder, trainer, {"data": path, "checksum": images.checksum})
        made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with run._lock():
                remove_partial_files(folder)
                run.save()
        except OSError:
            if made and folder.is_dir():  # no half-made run stays behind
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()
            raise
        return run

    @classmethod
    def resume(cls, folder, steps=None, xp=np):
        """Take up the run in `folder` where its checkpoint left it; `steps`, if given, is its new total.

        Raises BadInput, also where another process is training it.
        """
        folder = Path(folder)
        if not (folder / "checkpoint.npz").exists() and folder.is_dir() and any(map(_left_behind, folder.iterdir())):
            raise BadInput(f"{folder}: nothing was saved here yet; begin anew in it", "out")
        known = _state_of(folder / "checkpoint.npz")  # before it is read, so that a save in between is noticed
        saved = checkpoint.load_run(folder, xp)
        if saved.recipe is None:
            raise BadInput(f"{folder}: a model without its training state cannot be resumed")
        if steps is not None and steps <= saved.step:
            raise BadInput(f"{folder} has done {saved.step} steps already: ask for more than that in all", "steps")
        images = images_of(saved.about, saved.recipe.binary)
        recipe = saved.recipe if steps is None else replace(saved.recipe, steps=steps)
        trainer = Trainer(saved.model, images, recipe)
        trainer.adam.restore(saved.step, saved.adam["m"].values(), saved.adam["v"].values())
        run = cls(folder, trainer, saved.about)
        run._known = known
        with run._lock():
            remove_partial_files(folder)
            run._forget_after(saved.step)
        return run

    @contextlib.contextmanager
    def _lock(self):
        """Within this context no other process writes to the folder. Raises BadInput where one does, or has done."""
        if self._holds_lock:
            yield
            return
        with locked(self.folder / LOCK):
            if self._known and self._known != _state_of(self.checkpoint):
                raise BadInput(f"{self.folder}: somebody else went on with this run meanwhile; take it up anew")
            self._holds_lock = True
            try:
                yield
            finally:
                self._holds_lock = False

    def _lines(self):
        """The whole lines of the metrics file, parsed. Raises BadInput for one that training did not write."""
        if not self.metrics.exists():
            return []
        lines = []
        with open_file(self.metrics) as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break  # torn by a kill
                try:
                    lines.append(json.loads(line))
                    keys = ("step", "validation") if "validation" in lines[-1] else Metrics._fields
                    complete = all(isinstance(lines[-1][key], int | float) for key in keys)
                except (ValueError, TypeError, KeyError, RecursionError):
                    complete = False
                if not complete:
                    raise BadInput(f"{self.metrics}: line {number} is damaged: mend or remove it")
        return lines

    def _forget_after(self, step):
        """Drop what the metrics file says of steps after the checkpoint: they will be done again."""
        kept = "".join(json.dumps(line) + "\n" for line in self._lines() if line["step"] <= step)
        write_atomically(self.metrics, lambda file: file.write(kept.encode()))

    def save(self):
        """Write the checkpoint."""
        with self._lock():
            checkpoint.save(self.checkpoint, self.trainer, self.about)
            self._known = _state_of(self.checkpoint)

    def train(self):
        """Yield the Metrics of every step, and keep the folder up to date. Raises Diverged, WorkerLost.

        The consumer may stop at any time; call `save` then. Of a run that has done all its steps, the pictures are
        drawn again.
        """
        saved = time.monotonic()
        with self._lock(), open(self.metrics, "a", encoding="utf-8", newline="\n") as log:
            if self.trainer.steps_done >= self.trainer.recipe.steps:
                self.draw()

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

        step = self.trainer.steps_done
        figures = {
            "samples.png": plots.grid(self.trainer.model.sample(36).means[-1], f"Samples after {step} steps"),
            "loss.png": plots.loss_curves(self.history(), f"Training, {step} steps"),
        }
        for name, figure in figures.items():
            with contextlib.suppress(PermissionError):  # Windows, while a viewer holds the picture: the next one then
                write_atomically(self.folder / name, lambda file, f=figure: f.savefig(file, format="png"))
