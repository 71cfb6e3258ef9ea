"""A run in one `.npz`: configuration, parameters, recipe, Adam's state. Written atomically, read without unpickling."""

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from minidraw.backend import to_host
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.errors import BadInput, Diverged
from minidraw.files import read_arrays, write_atomically
from minidraw.training import Recipe

FORMAT, OLDER = "minidraw 2", "minidraw 1"
MOST_STEPS = 10**9
BUNDLED = {name: files("minidraw") / "bundled" / f"{name}.npz" for name in ("blog", "paper")}  # the presets' names


@dataclass
class Checkpoint:
    """What the file holds; a model without its training state has `recipe` and `adam` None."""

    model: Draw
    about: dict  # where the images came from and their checksum
    recipe: Recipe | None = None
    step: int = 0
    adam: dict | None = None  # {"m": {NAME: array}, "v": {NAME: array}}


def save(path, trainer, about):
    """Write the whole state of `trainer` (training.Trainer), and `about`, a dict of plain values.

    Raises Diverged where it is not finite: what was saved before is worth more.
    """
    header = {"config": asdict(trainer.model.config), "recipe": asdict(trainer.recipe), "about": about}
    arrays = {f"parameters/{name}": to_host(value) for name, value in trainer.model.arrays().items()}
    for name, m, v in zip(trainer.model.parameters, trainer.adam.m, trainer.adam.v, strict=True):
        arrays |= {f"m/{name}": to_host(m), f"v/{name}": to_host(v)}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise Diverged(f"training diverged at step {trainer.steps_done}: try a smaller learning rate", "learning_rate")
    arrays |= {"format": FORMAT, "header": json.dumps(header), "step": np.int64(trainer.steps_done)}
    write_atomically(path, lambda file: np.savez(file, **arrays))


def save_model(path, model, about):
    """Write only the model, as float16 and compressed: to be used, not to be trained on."""
    header = {"config": asdict(model.config), "recipe": None, "about": about}
    arrays = {f"parameters/{name}": to_host(value).astype(np.float16) for name, value in model.arrays().items()}
    arrays |= {"format": FORMAT, "header": json.dumps(header), "step": np.int64(0)}
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def load(path, xp=np):
    """The Checkpoint at `path`, its arrays of library `xp`, float32 or float64 as they were saved (float16 widened).

    Raises BadInput for a missing, truncated, corrupt or foreign file, or one whose arrays do not fit its configuration.
    """
    if not Path(path).exists():
        raise BadInput(
            f"{path}: no such file; a run is a folder that minidraw train made, such as runs/quick-1, "
            f"or a bundled model, {' or '.join(BUNDLED)}, where no folder has that name"
        )
    arrays = read_arrays(path, "a minidraw checkpoint")
    if str(arrays.get("format")) not in (FORMAT, OLDER):
        raise BadInput(f"{path}: not a minidraw checkpoint of this version ({FORMAT})")
    try:
        header = json.loads(str(arrays["header"]))
        if str(arrays["format"]) == OLDER:
            header = _converted(header)
        config = Config(**header["config"])
        recipe = None if header["recipe"] is None else Recipe(**header["recipe"])
        about, step = dict(header["about"]), int(arrays["step"])
        if not 0 <= step <= MOST_STEPS:
            raise ValueError(f"step is {step}")
        if not isinstance(about.get("data"), str | None):
            raise ValueError(f"data is {about['data']!r}")
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise BadInput(f"{path}: a damaged header, or one from another version ({error})") from None

    def taken(kind):
        taken = {}
        for name, shape in config.shapes.items():
            array = arrays.get(f"{kind}/{name}")
            if array is None or array.shape != shape or array.dtype.kind != "f":
                what = "missing" if array is None else f"{array.dtype} {array.shape}"
                raise BadInput(f"{path}: {kind}/{name} is {what}, but the configuration wants floats of shape {shape}")
            if not np.isfinite(array).all():
                raise BadInput(f"{path}: {kind}/{name} holds NaN or infinity")
            taken[name] = xp.asarray(array.astype(np.float32) if array.dtype == np.float16 else array)
        return taken

    model = Draw(config, taken("parameters"))
    adam = None if recipe is None else {"m": taken("m"), "v": taken("v")}
    return Checkpoint(model, about, recipe, step, adam)


def _converted(header):
    """The header of a file of the format before this one, as this one has it."""
    config = dict(header["config"])
    config["channels"] = config.pop("planes")
    return header | {"config": config}


def load_run(run=None, xp=np):
    """The Checkpoint of a run folder, or of a bundled model by its name; None is `paper`, and a folder comes first.

    Raises BadInput, like `load`.
    """
    if run is None:
        path = BUNDLED["paper"]
    elif str(run) in BUNDLED and not Path(run).is_dir():
        path = BUNDLED[str(run)]
    else:
        path = Path(run) / "checkpoint.npz"
    return load(path, xp)
