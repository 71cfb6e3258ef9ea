"""What an exercise of the tutorial calls to look at a reader's answer: it names the first thing that is wrong."""

import numpy as np

from minidraw.gradcheck import as_tuple, differences


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
