"""What an exercise of the tutorial calls to look at a reader's answer: it names the first thing that is wrong."""

import numpy as np

from minidraw.autodiff import backward
from minidraw.errors import BadInput
from minidraw.gradcheck import as_tuple, differences

EXACT = 1e-9  # how far a gradient may be off, in units of its length: by rounding
CLOSE = 45  # by how many degrees it may be turned: as a forgotten term turns it, if that is shorter than the rest


def expect(got, want, what="the answer", tolerance=1e-6):
    """Compare an answer with the right one, arrays or numbers; prints a line if it is right.

    Raises AssertionError for a shape that is not the right one, and otherwise names the first index that is off by
    more than `tolerance` times the largest number of `want`.
    """
    if got is None:
        raise AssertionError(f"{what}: nothing came back; is there a return?")
    got, want = np.asarray(got, dtype=float), np.asarray(want, dtype=float)
    if got.shape != want.shape:
        raise AssertionError(f"{what}: shape {got.shape}, and it should be {want.shape}")
    wrong = ~(np.abs(got - want) <= tolerance * np.abs(want).max())  # so that a NaN is wrong
    if wrong.any():
        index = tuple(map(int, np.argwhere(wrong)[0]))
        where = f" at index {list(index)}" if index else ""
        raise AssertionError(f"{what}{where}: {got[index]:.6g}, and it should be {want[index]:.6g}")
    print(f"{what}: right")


def expect_gradients(op, inputs, seed=0):
    """Compare the backward of a reader's op with central differences, under random cotangents.

    `op(*inputs)` returns `(value, backward)` as in chapter 1; `inputs` maps the name of each input to a float64 array.
    Raises AssertionError that names the first input and the first index that are wrong.
    """
    rng, arrays = np.random.default_rng(seed), list(inputs.values())
    value, backward = op(*arrays)
    cotangents = [rng.standard_normal(np.shape(output)) for output in as_tuple(value)]
    gradients = as_tuple(backward(*cotangents))
    if len(gradients) != len(inputs):
        raise AssertionError(f"backward gave {len(gradients)} gradients for {len(inputs)} inputs")

    def f(*moved):
        return as_tuple(op(*moved)[0])

    for k, (name, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        expect(gradient, differences(f, arrays, k, cotangents), f"the gradient of {name}")


class Gradients:
    """A backward pass that is handed in line by line, and judged by the tape: `d.z = ...` hands in the gradient of z.

    What is read, `d.z`, is always the right gradient, once one was handed in. So each line is judged by itself, and a
    mistake spoils no other line. `print(d)` says which are exact, close, wrong or missing, and which comes first.
    """

    def __init__(self, loss, values):
        """`values` maps names to the Tensors, parameters or not, from which the scalar Tensor `loss` was computed.

        Raises BadInput for a value whose gradient is zero everywhere: an answer could not be judged by it.
        """
        in_order = dict(sorted(values.items(), key=lambda item: -item[1].node.created))  # as `backward` goes
        right = dict(zip(in_order, backward(loss, in_order.values()), strict=True))
        for name, gradient in right.items():
            if not gradient.any():
                raise BadInput(f"the gradient of {name} is zero everywhere: choose values at which it is not")
            gradient.flags.writeable = False  # so that d.z += ... is refused: it would change what is right
        vars(self).update(_right=right, _handed_in={})

    def __setattr__(self, name, gradient):
        if name not in self._right:
            raise AttributeError(f"d.{name} is not asked for: there are {', '.join(self._right)}")
        self._handed_in[name] = gradient

    def __getattr__(self, name):  # only for what is no ordinary attribute
        if name.startswith("_") or self._handed_in.get(name) is None:
            raise AttributeError(f"d.{name} has not been handed in yet")
        return self._right[name]

    def grades(self):
        """A (name, grade, remark) for every gradient, in the order in which the tape goes back."""
        return [(name, *_grade(self._handed_in.get(name), right)) for name, right in self._right.items()]

    def __str__(self):
        grades = self.grades()
        unfinished = [(name, grade, remark) for name, grade, remark in grades if grade != "exact"]
        if not unfinished:
            return f"all {len(grades)} exact"
        count = {kind: [grade for _, grade, _ in grades].count(kind) for kind in ("exact", "close", "wrong", "missing")}
        lines = [", ".join(f"{kind} {number}" for kind, number in count.items())]
        lines += [f"{grade}: d.{name}, {remark}" for name, grade, remark in unfinished if grade != "missing"]
        return "\n".join([*lines, f"first on the way back: d.{unfinished[0][0]}"])


def _grade(got, want):
    """exact, close, wrong or missing, and a remark on it."""
    if got is None:
        return "missing", ""
    got = np.asarray(got)
    if got.shape != want.shape:
        return "wrong", f"shape {got.shape}, and it should be {want.shape}"
    error, length, right = (np.linalg.norm(array) for array in (got - want, got, want))
    if error <= EXACT * right:
        return "exact", ""
    cosine = np.sum(got * want) / (length * right) if length else 0.0
    degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    grade = "close" if degrees < CLOSE else "wrong"  # so that a NaN is wrong
    return grade, f"turned by {degrees:.1f} degrees, {length / right:.4g} times as long as it should be"
