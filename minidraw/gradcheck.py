"""Two independent witnesses for a backward: central differences and the complex step. Chapter 1.

Both look at the scalar s = sum_k <cotangent_k, output_k>, (1.6), with random cotangents. All ones
would not do: the rows of a softmax sum to a constant, so that a softmax whose backward is
zero, or seven times too large, would pass.
"""

from typing import NamedTuple

import numpy as np

from minidraw.autodiff import dense
from minidraw.errors import BadInput

DIFFERENCES_LIMIT, COMPLEX_STEP_LIMIT = 1e-7, 1e-12


class Row(NamedTuple):
    """The worst relative error of one input's gradient, by either witness."""

    op: str
    input: str
    differences: float
    complex_step: float

    @property
    def passed(self):  # written so that a NaN does not pass
        return self.differences <= DIFFERENCES_LIMIT and self.complex_step <= COMPLEX_STEP_LIMIT


def relative_error(got, want):
    """max|got - want| / max|want|; BadInput where `want` is all zero, for that checks nothing."""
    largest = np.abs(want).max()
    if largest == 0:
        raise BadInput("the reference gradient is zero everywhere: choose inputs at which it is not")
    if np.shape(got) != np.shape(want):
        return float("inf")
    return float(np.abs(got - want).max() / largest)


def as_tuple(value):
    """The outputs of an op, which may have one or several, as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def _elementwise(slope, array):
    """`slope(index)` for every index of `array`, as an array of its shape."""
    gradient = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        gradient[index] = slope(index)
    return gradient


def differences(f, inputs, k, cotangents, step=1e-5):
    """The gradient of s with respect to `inputs[k]` by central differences, (1.3)."""

    def outputs(index, delta):
        moved = inputs[k].copy()
        moved[index] += delta
        return f(*inputs[:k], moved, *inputs[k + 1 :])

    def slope(index):
        ahead, behind = outputs(index, step), outputs(index, -step)
        return sum(np.sum(c * (a - b)) for c, a, b in zip(cotangents, ahead, behind, strict=True)) / (2 * step)

    return _elementwise(slope, inputs[k])


def complex_step(f, inputs, k, cotangents, step=1e-30):
    """The gradient of s by `inputs[k]`, Im s(x + i step) / step, (1.5): exact to rounding.

    No difference is taken, so nothing cancels and the step can be as small as we like.
    It needs an f that is analytic: no abs, and comparisons on the real part only.
    """

    def slope(index):
        moved = inputs[k].astype(complex)
        moved[index] += 1j * step
        outputs = f(*inputs[:k], moved, *inputs[k + 1 :])
        return sum(np.sum(c * o.imag) for c, o in zip(cotangents, outputs, strict=True)) / step

    return _elementwise(slope, inputs[k])


def witnesses(op, inputs, names, cotangents):
    """For every input of a bare op its gradient by (differences, complex step), or None where the name is None."""

    def f(*moved):
        return as_tuple(op(*moved)[0])

    both = differences, complex_step
    return [
        None if name is None else [witness(f, inputs, k, cotangents) for witness in both]
        for k, name in enumerate(names)
    ]


def compare(label, names, gradients, wanted):
    """A Row for every input with a gradient, from what a backward gave and what `witnesses` found.

    Raises BadInput where a gradient is missing, or where there is one too many.
    """
    if len(gradients) != len(names):
        raise BadInput(f"{label}: backward gave {len(gradients)} gradients for {len(names)} inputs")
    rows = []
    for k, (name, gradient, want) in enumerate(zip(names, gradients, wanted, strict=True)):
        if name is None and gradient is not None:
            raise BadInput(f"{label}: input {k} is data, but its backward gave a gradient")
        if name is not None and gradient is None:
            raise BadInput(f"{label}: no gradient for {name}")
        if name is not None:
            rows.append(Row(label, name, *(relative_error(dense(gradient), witness) for witness in want)))
    return rows


def check(op, inputs, names, rng, label):
    """Check a bare op (`op.on_arrays`) at float64 `inputs`: a Row for every input with a gradient.

    `names` names the inputs; None in place of a name marks data, for which the op's backward must return None.
    Random cotangents come from `rng`; `label` names the op. Raises BadInput as `compare` does.
    """
    value, backward = op(*inputs)
    cotangents = [rng.standard_normal(output.shape) for output in as_tuple(value)]
    return compare(label, names, as_tuple(backward(*cotangents)), witnesses(op, inputs, names, cotangents))
