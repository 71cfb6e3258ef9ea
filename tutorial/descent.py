"""What small trainings of the tutorial share: maps by name, a descent with Adam, and the files it leaves."""

import argparse
import json
import math
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minidraw.adam import Adam, clip_factor, global_norm
from minidraw.autodiff import Tensor, backward
from minidraw.backend import array_module, library, to_host, wait_for
from minidraw.bench import machine
from minidraw.errors import BadInput, Diverged, MinidrawError
from minidraw.files import read_arrays, remove_partial_files, write_atomically
from minidraw.ops import affine
from minidraw.training import Recipe

EVERY = 100  # steps that one row of a curve sums up: a GPU is waited for no more often
SAVE_EVERY = 60  # seconds


class Maps:
    """Weights W (in, out) and biases b (out,) of affine maps, and what else is to be learned: Tensors by name."""

    def __init__(self, arrays):
        """`arrays` by name, "encoder/w" and "encoder/b" for the map "encoder"."""
        self.parameters = {name: Tensor(array) for name, array in arrays.items()}
        self.xp = array_module(next(iter(arrays.values())))

    @classmethod
    def initial(cls, shapes, seed, xp=np):
        """Matrices N(0, 1/rows), vectors zero; shapes by name. Drawn by NumPy from the seed."""
        rng, arrays = np.random.default_rng(seed), {}
        for name, shape in shapes.items():
            value = np.zeros(shape) if len(shape) == 1 else rng.standard_normal(shape) / shape[0] ** 0.5
            arrays[name] = xp.asarray(value.astype(np.float32))
        return cls(arrays)

    def __call__(self, name, x):
        """x W + b of the map of that name."""
        return affine(x, self.parameters[f"{name}/w"], self.parameters[f"{name}/b"])

    def arrays(self):
        """The parameters as arrays, by name."""
        return {name: tensor.value for name, tensor in self.parameters.items()}

    @property
    def number_of_parameters(self):
        return sum(array.size for array in self.arrays().values())


def with_biases(maps):
    """The shapes of W and b for maps given as (in, out) by name."""
    return {f"{name}/{kind}": s for name, shape in maps.items() for kind, s in (("w", shape), ("b", shape[1:]))}


class Descent:
    """Adam on the parameters of some Maps, at the rates and with the clip of a Recipe."""

    def __init__(self, maps, recipe, **betas):
        self.maps, self.recipe = maps, recipe
        self.adam = Adam(maps.arrays().values(), **betas)

    def step(self, loss):
        """One step down the gradient of `loss`, a scalar Tensor; returns the gradient's norm before the clip."""
        gradients = backward(loss, self.maps.parameters.values())
        norm = global_norm(gradients)
        factor = clip_factor(norm, self.recipe.clip)
        self.adam.update([factor * gradient for gradient in gradients], self.recipe.learning_rate_at(self.adam.t + 1))
        return norm

    def state(self):
        """Parameters and moments, arrays by name."""
        columns = zip(self.maps.parameters, self.maps.arrays().values(), self.adam.m, self.adam.v, strict=True)
        return {
            f"{kind}/{name}": to_host(array)
            for name, *arrays in columns
            for kind, array in zip(("parameters", "m", "v"), arrays, strict=True)
        }

    def restore(self, t, arrays):
        """Go on from the `state` after t steps."""
        xp = self.maps.xp
        for name, own in self.maps.arrays().items():
            own[...] = xp.asarray(arrays[f"parameters/{name}"])
        moments = ([xp.asarray(arrays[f"{kind}/{name}"]) for name in self.maps.parameters] for kind in "mv")
        self.adam.restore(t, *moments)


def rows_of(images, recipe, step):
    """The images (batch, pixels) of a training step: drawn with replacement, from (seed, step) alone."""
    return images[np.random.default_rng([recipe.seed, 1, step]).integers(len(images), size=recipe.batch_size)]


def descend(path, descents, step, recipe, settings):
    """Call `step(number)` for every step of the recipe; returns the curve, lists by name, and the seconds it took.

    `descents` by name are what `step` changes; it returns numbers by name, 0-d arrays, and the curve has their means
    over 100 steps. The state is saved beside `path` once a minute; a run of the same settings goes on from there.
    Raises BadInput for a checkpoint of other settings, Diverged where a number is not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partial_files(path.parent)
    checkpoint = path.with_name(f"{path.name}.checkpoint.npz")
    settings = {"recipe": {**asdict(recipe), "growth": list(recipe.growth)}, **settings}
    done, curve, seconds = 0, {}, 0.0
    if checkpoint.exists():
        header, arrays = load(checkpoint)
        if header["settings"] != settings:
            raise BadInput(f"{checkpoint} is of a run with other settings: choose another folder, or remove it", "out")
        done, curve, seconds = header["done"], header["curve"], header["seconds"]
        for name, descent in descents.items():
            prefix = f"{name}/"
            descent.restore(done, {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)})
    xp = next(iter(descents.values())).maps.xp
    pending, began, saved = [], time.monotonic() - seconds, time.monotonic()
    with tqdm(desc=path.name, unit=" steps", mininterval=10, total=recipe.steps, initial=done) as bar:
        for number in range(done + 1, recipe.steps + 1):
            with np.errstate(all="ignore"):  # what overflows shows in the row
                pending.append(step(number))
            if number % EVERY and number < recipe.steps:
                continue
            sums = to_host(xp.stack([xp.stack(list(numbers.values())) for numbers in pending]).sum(axis=0))
            row = dict(zip(pending[0], (sums / len(pending)).tolist(), strict=True))
            pending = []
            if not all(map(math.isfinite, row.values())):
                raise Diverged(f"training diverged by step {number}: the recipe's learning_rate is too high")
            for name, value in {"step": number, **row}.items():
                curve.setdefault(name, []).append(round(value, 4))
            bar.set_postfix({name: f"{value:.2f}" for name, value in row.items()}, refresh=False)
            bar.update(number - bar.n)
            if time.monotonic() - saved > SAVE_EVERY:
                state = {f"{name}/{key}": a for name, descent in descents.items() for key, a in descent.state().items()}
                seconds = round(time.monotonic() - began, 1)
                save(checkpoint, {"settings": settings, "done": number, "curve": curve, "seconds": seconds}, state)
                saved = time.monotonic()
    wait_for(xp)
    return curve, round(time.monotonic() - began, 1)


# Files


def save(path, header, arrays):
    """A file of arrays by name, with a header of plain values."""
    write_atomically(path, lambda file: np.savez(file, header=json.dumps(header), **arrays))


def load(path):
    """The header and the arrays of such a file. Raises BadInput for any other."""
    arrays = read_arrays(path, "a file of this tutorial's trainings")
    try:
        return dict(json.loads(str(arrays.pop("header")))), arrays
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{path}: not a file of this tutorial's trainings, or damaged") from None


def save_weights(path, header, *maps):
    """The parameters of some Maps as float16."""
    arrays = {name: to_host(a).astype(np.float16) for part in maps for name, a in part.arrays().items()}
    save(path, header, arrays)


def load_weights(path, xp=np):
    """The header of a file of weights, and its parameters in float32, arrays by name."""
    header, arrays = load(path)
    return header, {name: xp.asarray(array.astype(np.float32)) for name, array in arrays.items()}


def summary(nats):
    """The mean of the nats of some images, and its standard error, as plain values."""
    error = nats.std(ddof=1) / len(nats) ** 0.5
    return {"images": len(nats), "nats": round(nats.mean(), 3), "standard_error": round(error, 3)}


def summary_of_costs(L_x, L_z):
    """The `summary` of L_x + L_z, nats of some images, (n,) each, with the mean of either."""
    return {**summary(L_x + L_z), "L_x": round(L_x.mean(), 3), "L_z": round(L_z.mean(), 3)}


def write_results(path, results):
    """Plain values as a line of JSON."""
    write_atomically(path, lambda file: file.write((json.dumps(results) + "\n").encode()))


def device_of(xp):
    """The machine, and what of it did the work."""
    gpu = None if xp is np else xp.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return {"machine": machine(), "device": gpu or "cpu", "numpy": np.__version__}


# The command of a training


def command(file, names, train, recipe, argv=None):
    """The command line of `tutorial/FILE.py NAME`; returns the exit status: 0, 1 for what went wrong, 130 for Ctrl-C.

    `train(name, recipe, path, xp)` trains one of `names`, writes its weights, and returns its results, plain values,
    and a line to print; the results are written to `path`.json. `recipe` has the defaults.
    """
    about = sys.modules[train.__module__].__doc__
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--steps", type=int, default=recipe.steps, metavar="N", help=f"({recipe.steps})")
    parser.add_argument("--seed", type=int, default=recipe.seed, metavar="N", help=f"({recipe.seed})")
    parser.add_argument("--out", default=f"runs/{file}", metavar="FOLDER", help=f"(runs/{file})")
    args = parser.parse_args(argv)
    if args.steps < 1 or args.seed < 0:
        parser.error("--steps must be a whole number from 1 up, --seed from 0 up")
    numbers = {**asdict(recipe), "steps": args.steps, "horizon": args.steps, "seed": args.seed}
    path = Path(args.out) / (args.name if args.seed == recipe.seed else f"{args.name}-seed-{args.seed}")
    words = shlex.join(["python", f"tutorial/{file}.py", *(sys.argv[1:] if argv is None else argv)])
    try:
        if path.with_suffix(".json").exists():
            raise BadInput(f"{path}.json is there already: choose another folder, or remove it", "out")
        xp = library(args.device)
        results, line = train(args.name, Recipe(**numbers), path, xp)
        write_results(path.with_suffix(".json"), {"command": words, **device_of(xp), **results})
        path.with_name(f"{path.name}.checkpoint.npz").unlink(missing_ok=True)
    except (MinidrawError, OSError) as error:
        flags = ", ".join("--" + name.replace("_", "-") for name in getattr(error, "arguments", ()))
        print(f"{file}: {error}" + f" ({flags})" * bool(flags), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{file}: interrupted; the same command goes on from the last save, if there is one", file=sys.stderr)
        return 130
    print(f"{path.name}: {line}")
    return 0
