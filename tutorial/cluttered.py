"""Table 1 of the paper: a digit somewhere among clutter, classified by a network that sees it through DRAW's read.

    python tutorial/cluttered.py attention-8 --device gpu --seconds 450

trains one of four networks and writes NAME.npz, its weights as float16, and NAME.json, its curve and its test error, to
the folder --out (runs/cluttered). The learning rate follows the share of the budget that is used, seconds or steps, so
that networks can be compared at equal time. NAME.checkpoint.npz is written now and then; the same command takes a run
up again from there, and with --steps the result is, bit for bit, that of a run that was never stopped.

Gregor et al. 2015, section 4.1, after Mnih, Heess, Graves, Kavukcuoglu: Recurrent Models of Visual Attention, 2014.
"""

import argparse
import math
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from descent import device_of, load, save, write_results
from numpy.lib.stride_tricks import sliding_window_view
from tqdm import tqdm

from minidraw.adam import Adam, clip_factor, global_norm
from minidraw.autodiff import Tensor, backward, no_grad
from minidraw.backend import array_module, library, to_host, wait_for
from minidraw.cuda_graph import Recording
from minidraw.errors import BadInput, Diverged, MinidrawError
from minidraw.files import remove_partial_files
from minidraw.images import mnist, mnist_labels
from minidraw.ops import affine, cross_entropy, filterbank, lstm, read
from minidraw.ops.elementary import concat, split_rows
from minidraw.training import Recipe

# The scenes: what is seen

SIDE = 100  # of a scene, in pixels
PIECES, PIECE = 8, 8  # how many pieces of clutter there are, and the side of each
SPLITS = ("train", "validation", "test")
BLOCK = 100  # scenes that are made together


def scenes(digits, which, rng):
    """Scenes (len(which), 100, 100): the digits of those numbers, among clutter.

    digits (count, height, width), zeros and ones in uint8 for MNIST; `which` are whole
    numbers below count. The digit goes into an empty scene as it is, at a place drawn
    uniformly from all where it lies wholly within the scene. Then come eight pieces,
    each an 8x8 square of another digit of `digits`; that digit, the square's place in
    it and its place in the scene are uniform, too. Where things overlap, the brighter
    pixel stays. A piece may come from a digit's empty margin, and may lie on the digit.
    """
    n, rows, (count, *shape) = len(which), np.arange(len(which)), digits.shape
    scene = np.zeros((n, SIDE, SIDE), digits.dtype)

    def places(*sides):
        """Rows and columns, uniform, of what has `sides` free to move in."""
        return [rng.integers(free + 1, size=(PIECES, n)) for free in sides]

    def windows(images, *sides):
        """Every part of `images` with these sides, as views: (images, y, x, *sides)."""
        return sliding_window_view(images, sides, axis=(1, 2), writeable=images is scene)

    y, x = (rng.integers(SIDE - side + 1, size=n) for side in shape)
    windows(scene, *shape)[rows, y, x] = digits[which]
    others = (which + rng.integers(1, count, size=(PIECES, n))) % count
    pieces = windows(digits, PIECE, PIECE)[others, *places(*(side - PIECE for side in shape))]
    within = windows(scene, PIECE, PIECE)
    for piece, y, x in zip(pieces, *places(SIDE - PIECE, SIDE - PIECE), strict=True):
        within[rows, y, x] = np.maximum(within[rows, y, x], piece)
    return scene


class Split:
    """The scenes of "train", "validation" or "test": digits and clutter are of that split alone.

    All are flat, uint8 (n, 10,000), beside their labels, uint8 (n,).
    """

    def __init__(self, name):
        self.tag = SPLITS.index(name)
        self.digits, self.labels = getattr(mnist(), name).reshape(-1, 28, 28), mnist_labels(name)

    def batch(self, seed, step, size):
        """The `size` scenes of a training step, from (seed, step) alone: new ones in every step."""
        rng = np.random.default_rng([seed, self.tag, step])
        which = rng.integers(len(self.digits), size=size)
        return scenes(self.digits, which, rng).reshape(size, -1), self.labels[which]

    def block(self, number):
        """Scenes 100 * number to 100 * number + 99 of those that every run is judged by: one for each digit, in order.

        They do not depend on the seed of a run.
        """
        which = np.arange(number * BLOCK, (number + 1) * BLOCK)
        rng = np.random.default_rng([0, self.tag, number])
        return scenes(self.digits, which, rng).reshape(BLOCK, -1), self.labels[which]


# The classifier


@dataclass(frozen=True)
class Config:
    """The sizes of a classifier."""

    T: int  # glimpses
    units: int = 256  # of the LSTM
    N: int | None = None  # filters each way of a glimpse; None sees the whole scene in every step
    side: int = SIDE  # of a scene, in pixels
    classes: int = 10

    @property
    def shapes(self):
        """The name and shape of every parameter, in order."""
        seen = self.side**2 if self.N is None else self.N**2
        maps = {} if self.N is None else {"read": (self.units, 5)}
        maps |= {"lstm": (seen + self.units, 4 * self.units), "class": (self.units, self.classes)}
        return {f"{name}/{kind}": s for name, shape in maps.items() for kind, s in (("w", shape), ("b", shape[1:]))}

    @property
    def multiplications(self):
        """Those of the matrix products with weights and with filters that one scene goes through, forward."""
        H, N, side, T = self.units, self.N, self.side, self.T
        recurrent, out = T * H * 4 * H, H * self.classes
        if N is None:
            return side**2 * 4 * H + recurrent + out  # x W_x once
        return T * (H * 5 + N * side * side + N * side * N + N**2 * 4 * H) + recurrent + out


def as_narrow_as(config):
    """The Config without attention, of equal T, with as many units as there can be at no more multiplications."""
    units = 1
    while Config(config.T, units + 1, side=config.side).multiplications <= config.multiplications:
        units += 1
    return Config(config.T, units, side=config.side)


ATTENTION = Config(T=8, N=12)  # Table 3 of the paper
NETWORKS = {
    "attention-8": ATTENTION,
    "attention-4": Config(T=4, N=12),
    "whole-8": Config(T=8),
    "narrow-8": as_narrow_as(ATTENTION),
}


class Classifier:
    """The network: a Config and its parameters, Tensors by name."""

    def __init__(self, config, parameters):
        """`parameters` maps every name of `config.shapes` to an array of that shape."""
        self.config = config
        self.parameters = {name: Tensor(parameters[name]) for name in config.shapes}
        self.xp = array_module(self.parameters["class/b"].value)
        self.dtype = self.parameters["class/b"].value.dtype

    @classmethod
    def initial(cls, config, seed=0, dtype="float32", xp=np):
        """Weights N(0, 1/fan_in), biases zero; but for the map to the window."""
        rng = np.random.default_rng(seed)
        parameters = {
            name: np.zeros(shape) if len(shape) == 1 else rng.standard_normal(shape) / shape[0] ** 0.5
            for name, shape in config.shapes.items()
        }
        if config.N is not None:
            # The first window spans the scene, and its filters lie delta = 99/11 = 9 pixels apart. With sigma = 1 they
            # would see stripes with gaps between, and a gradient would not feel what lies there: delta/2 leaves none.
            # A filter then averages over some delta x delta pixels, of which a stroke two pixels wide covers 2 delta:
            # with gamma = delta, what it sees of a stroke is of the order of 1.
            # The weights are a tenth, for a step of 1 in g~ is one of 50.5 pixels: with full weights what a glimpse
            # does to the next one grows from t to t, and chance places the windows.
            delta = (config.side - 1) / (config.N - 1)
            parameters["read/b"][[2, 4]] = 2 * math.log(delta / 2), math.log(delta)  # log sigma^2, log gamma: (21)
            parameters["read/w"] /= 10
        return cls(config, {name: xp.asarray(value.astype(dtype)) for name, value in parameters.items()})

    def arrays(self):
        """The parameters as arrays, by name."""
        return {name: tensor.value for name, tensor in self.parameters.items()}

    def glimpses(self, x):
        """Look at scenes x (batch, side * side) T times.

        Yields each time h (batch, units), and the window (batch, 5) or None. It is
        DRAW's encoder, (4) and (5), without a decoder: the window comes from the
        network's own state, and where there is no canvas there is no error image.
        """
        zeros = self.xp.zeros((len(x), self.config.units), self.dtype)
        h, cell = zeros, zeros
        W, b = self._lstm(x)
        for _ in range(self.config.T):
            r, window = self._read(x, h)
            h, cell = lstm(affine(h if r is None else concat(r, h), W, b), cell)
            yield h, window

    def logits(self, x):
        """The logits of the classes (batch, classes), from the last h."""
        *_, (h, _) = self.glimpses(x)
        return self._affine("class", h)

    def _affine(self, name, x):
        return affine(x, self.parameters[f"{name}/w"], self.parameters[f"{name}/b"])

    def _lstm(self, x):
        """W and b of the LSTM's map. Without attention x W_x is the same at every t: made once, as in (9.9)."""
        W, b = self.parameters["lstm/w"], self.parameters["lstm/b"]
        if self.config.N is not None:
            return W, b
        W_x, W = split_rows(W, first=x.shape[1])
        return W, affine(x, W_x, b)

    def _read(self, x, h):
        """The glimpse r (batch, N * N), and its window.

        Without attention both are None: `_lstm` has seen to x.
        """
        config = self.config
        if config.N is None:
            return None, None
        window = self._affine("read", h)  # (21)
        return read(x, *filterbank(window, N=config.N, A=config.side, B=config.side)), window  # (27)

    def scenes(self, x):
        """Scenes in uint8, as the classifier takes them: sent to its device as they are, and made floats there."""
        return self.xp.asarray(x).astype(self.dtype)


def error_rate(classifier, split, count):
    """The share of the first `count` scenes of a Split that is classified wrongly; one look at the device."""
    wrong = 0
    with no_grad():
        for number in range(count // BLOCK):
            x, labels = split.block(number)
            wrong = wrong + errors(classifier.logits(classifier.scenes(x)).value, classifier.xp.asarray(labels))
    return float(to_host(classifier.xp.asarray(wrong))) / (count // BLOCK)


def errors(logits, labels):
    """The share of rows whose largest logit is not that of the label, a 0-d array."""
    return (array_module(logits).argmax(logits, axis=1) != labels).mean()


# Training

EVERY = 50  # steps that one row of the curve sums up: the device is looked at no more often
VALIDATE_EVERY, VALIDATION = 1000, 2000  # steps, scenes
SAVE_EVERY = 60  # seconds


class Budget(NamedTuple):
    """What a run may use: seconds of training, or steps; the other is None."""

    seconds: float | None = None
    steps: int | None = None


class Training:
    """A training run in memory. `spent` are its seconds of training: validation and saving stop the clock."""

    def __init__(self, classifier, split, recipe, budget):
        """Of a Classifier, the Split that it learns from, a Recipe (batch size, rate, clip, seed) and a Budget."""
        self.classifier, self.split, self.recipe, self.budget = classifier, split, recipe, budget
        self.adam = Adam(classifier.arrays().values())
        self._recording = None  # of `_gradients`, on a GPU
        self.curve, self.spent = [], 0.0
        self._pending, self._began = [], None

    @property
    def steps_done(self):
        return self.adam.t

    @property
    def share(self):
        """The share of the budget that is used up after the coming step; of seconds, before it. Above 1 it is over."""
        if self.budget.steps is not None:
            return (self.steps_done + 1) / self.budget.steps
        running = 0 if self._began is None else time.monotonic() - self._began
        return (self.spent + running) / self.budget.seconds

    def step(self, share):
        """One step of gradient descent, at the learning rate that belongs to that share of the budget.

        Nothing is waited for: nats, error and norm stay on the device.
        """
        recipe, xp = self.recipe, self.classifier.xp
        batch = self.split.batch(recipe.seed, self.steps_done + 1, recipe.batch_size)
        x, labels = (xp.asarray(array) for array in batch)
        with np.errstate(all="ignore"):  # what overflows shows in the row
            nats, error, norm = (self._recording or self._gradients)(x, labels)
            factor = clip_factor(norm, recipe.clip)
        learning_rate = recipe.learning_rate_at(share * recipe.horizon)
        self.adam.update([factor * gradient for gradient in self._found], learning_rate)
        self._pending.append(xp.stack([nats, error, norm]))

    def _gradients(self, x, labels):
        """Mean nats, share of errors and global norm, 0-d arrays; the gradients themselves are left in `_found`."""
        logits = self.classifier.logits(self.classifier.scenes(x))
        nats = cross_entropy(logits, labels).mean()
        self._found = backward(nats, self.classifier.parameters.values())
        return nats.value, errors(logits.value, labels), global_norm(self._found)

    def prepare(self):
        """Compile and record what a GPU will do, so that this is in nobody's budget; a CPU needs nothing."""
        if self.classifier.xp is not np:
            x, labels = self.split.batch(self.recipe.seed, 1, self.recipe.batch_size)
            xp = self.classifier.xp
            self._recording = Recording(xp, self._gradients, xp.asarray(x), xp.asarray(labels))

    def rows(self):
        """Train until the budget is used up, and yield a row of the curve for every 50 steps; the clock stops then."""
        self._began = time.monotonic()
        while (share := self.share) <= 1:
            self.step(share)
            if self.steps_done % EVERY == 0:
                self._stop_the_clock()
                self.curve.append(self._row(share))
                yield self.curve[-1]
                self._began = time.monotonic()
        self._stop_the_clock()

    def _stop_the_clock(self):
        wait_for(self.classifier.xp)
        self.spent += time.monotonic() - self._began
        self._began = None

    def _row(self, share):
        """The means of the last 50 steps. Raises Diverged where they are not finite."""
        nats, error, norm = to_host(self.classifier.xp.stack(self._pending).mean(axis=0)).tolist()
        self._pending = []
        if not math.isfinite(nats + norm):
            raise Diverged(f"training diverged before step {self.steps_done}: try a smaller rate", "learning_rate")
        numbers = {"share": share, "seconds": self.spent, "nats": nats, "error": error, "gradient_norm": norm}
        return {"step": self.steps_done} | {name: round(number, 5) for name, number in numbers.items()}

    # On the disk

    @property
    def settings(self):
        """What the run is, as plain values."""
        return {
            "config": asdict(self.classifier.config),
            "recipe": {name: getattr(self.recipe, name) for name in ("batch_size", "learning_rate", "seed")},
            "budget": self.budget._asdict(),
        }

    def save(self, path):
        """Write the whole state, between two rows of the curve: what is pending is not kept."""
        arrays = {"t": np.int64(self.adam.t)}
        for name, *triple in zip(self.classifier.parameters, self._parameters(), self.adam.m, self.adam.v, strict=True):
            arrays |= {f"{kind}/{name}": to_host(array) for kind, array in zip(KINDS, triple, strict=True)}
        save(path, self.settings | {"curve": self.curve, "spent": self.spent}, arrays)

    def restore(self, path):
        """Go on from a saved state. Raises BadInput for one of other settings, or no such file at all."""
        header, arrays = load(path)
        if any(header.get(name) != setting for name, setting in self.settings.items()):
            raise BadInput(f"{path} is of a run with other settings: choose another folder, or remove it", "out")
        try:
            parameters, m, v = ([arrays[f"{kind}/{name}"] for name in self.classifier.parameters] for kind in KINDS)
            t, self.curve, self.spent = int(arrays["t"]), header["curve"], header["spent"]
        except KeyError as error:
            raise BadInput(f"{path}: no checkpoint, for it lacks {error}") from None
        for own, saved in zip(self._parameters(), parameters, strict=True):
            own[...] = self.classifier.xp.asarray(saved)
        self.adam.restore(t, *([self.classifier.xp.asarray(array) for array in moment] for moment in (m, v)))

    def _parameters(self):
        return self.classifier.arrays().values()


KINDS = ("parameters", "m", "v")


def trained(path, xp=np):
    """The Classifier in a weights file NAME.npz, float32. Raises BadInput for what is no such file."""
    header, arrays = load(path)
    try:
        config = Config(**header["config"])
        parameters = {name: arrays[f"parameters/{name}"] for name in config.shapes}
    except (KeyError, TypeError):
        raise BadInput(f"{path}: not the weights of a classifier") from None
    return Classifier(config, {name: xp.asarray(array.astype(np.float32)) for name, array in parameters.items()})


# The command


def train(name, recipe, budget, folder, xp, command):
    """Train the network of that name, or go on with it, and write its weights and its results to the folder."""
    weights, results, checkpoint = (Path(folder) / f"{name}{end}" for end in (".npz", ".json", ".checkpoint.npz"))
    if results.exists():
        raise BadInput(f"{results} is there already: choose another folder, or remove it", "out")
    Path(folder).mkdir(parents=True, exist_ok=True)
    remove_partial_files(folder)
    split = Split("train")
    training = Training(Classifier.initial(NETWORKS[name], recipe.seed, xp=xp), split, recipe, budget)
    if checkpoint.exists():
        training.restore(checkpoint)
    training.prepare()
    validation, saved = Split("validation"), time.monotonic()
    with tqdm(desc=name, unit=" steps", mininterval=10, total=budget.steps, initial=training.steps_done) as bar:
        for row in training.rows():
            if row["step"] % VALIDATE_EVERY == 0:
                row["validation"] = error_rate(training.classifier, validation, VALIDATION)
            if time.monotonic() - saved > SAVE_EVERY:
                training.save(checkpoint)
                saved = time.monotonic()
            bar.set_postfix(nats=row["nats"], error=row["error"], used=f"{row['share']:.0%}", refresh=False)
            bar.update(row["step"] - bar.n)
    found = results_of(training, validation)
    header = {"config": asdict(training.classifier.config), "command": command}
    arrays = {f"parameters/{key}": to_host(a).astype(np.float16) for key, a in training.classifier.arrays().items()}
    save(weights, header, arrays)
    found = {"command": command} | device_of(xp) | training.settings | found | {"curve": columns(training.curve)}
    write_results(results, found)
    checkpoint.unlink(missing_ok=True)
    return found


def columns(rows):
    """The rows of a curve as lists by name; where a row has no validation error, None."""
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def results_of(training, validation):
    """What there is to say of a run that is over: here, and only here, the test scenes are looked at."""
    test, classifier = Split("test"), training.classifier
    count = len(test.labels)
    error = error_rate(classifier, test, count)
    return {
        "parameters": sum(math.prod(shape) for shape in classifier.config.shapes.values()),
        "multiplications": classifier.config.multiplications,
        "seconds": round(training.spent, 1),
        "steps": training.steps_done,
        "validation": error_rate(classifier, validation, VALIDATION),
        "test": error,
        "test_standard_error": math.sqrt(error * (1 - error) / count),
        "shown": shown(classifier, test),
    }


def shown(classifier, test, count=10):
    """The first test scenes, for a figure: label, answer, and the window of every glimpse, T x 5 as in (21)."""
    x, labels = (part[:count] for part in test.block(0))
    with no_grad():
        answers = to_host(classifier.logits(classifier.scenes(x)).value).argmax(axis=1)
        windows = [to_host(w.value) for _, w in classifier.glimpses(classifier.scenes(x)) if w is not None]
    found = {"labels": labels.tolist(), "answers": answers.tolist()}
    return found | {"windows": np.swapaxes(windows, 0, 1).round(4).tolist()} if windows else found


def main(argv=None):
    """Run the command; returns the exit status: 0, 1 for what went wrong, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NETWORKS, metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--seconds", type=float, metavar="S", help="train for so long")
    budget.add_argument("--steps", type=int, metavar="N", help="train so many steps")
    parser.add_argument("--batch-size", type=int, default=100, metavar="N", help="scenes in a step (100)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="X", help="at its height (0.001)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--out", default="runs/cluttered", metavar="FOLDER", help="(runs/cluttered)")
    args = parser.parse_args(argv)
    if not all(0 < number < math.inf for number in (args.seconds, args.steps) if number is not None):
        parser.error("--seconds and --steps must be positive")
    command = shlex.join(["python", "tutorial/cluttered.py", *(sys.argv[1:] if argv is None else argv)])
    try:
        recipe = Recipe(batch_size=args.batch_size, learning_rate=args.learning_rate, seed=args.seed)
        xp = library(args.device)
        found = train(args.name, recipe, Budget(args.seconds, args.steps), args.out, xp, command)
    except (MinidrawError, OSError) as error:
        flags = ", ".join("--" + name.replace("_", "-") for name in getattr(error, "arguments", ()))
        print(f"cluttered: {error}" + f" ({flags})" * bool(flags), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluttered: interrupted", file=sys.stderr)
        return 130
    error, deviation = found["test"], found["test_standard_error"]
    print(f"{args.name}: test error {error:.2%} ± {deviation:.2%} after {found['steps']} steps, {found['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
