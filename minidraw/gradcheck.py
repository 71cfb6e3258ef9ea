"""Two independent witnesses for a backward: central differences and the complex step. Chapter 1.

Both look at the scalar s = sum_k <cotangent_k, output_k>, (1.6), with random cotangents. All ones
would not do: the rows of a softmax sum to a constant, so that a softmax whose backward is
zero, or seven times too large, would pass.
"""

from typing import NamedTuple

import numpy as np

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
    """max|got - want| / max|want|; ValueError where `want` is all zero, for that checks nothing."""
    largest = np.abs(want).max()
    if largest == 0:
        raise ValueError("the reference gradient is zero everywhere: choose inputs at which it is not")
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
    """The gradient of s with respect to `inputs[k]` as Im s(x + i step) / step, (1.5): exact to rounding.

    No difference is taken, so nothing cancels and the step can be as small as we like. It
    needs an f that is analytic: no abs, and comparisons on the real part only.
    """

    def slope(index):
        moved = inputs[k].astype(complex)
        moved[index] += 1j * step
        outputs = f(*inputs[:k], moved, *inputs[k + 1 :])
        return sum(np.sum(c * o.imag) for c, o in zip(cotangents, outputs, strict=True)) / step

    return _elementwise(slope, inputs[k])


def check(maths, inputs, names, rng, label):
    """Check a bare op (`op.maths`) at float64 `inputs`: a Row for every input with a gradient.

    `names` names the inputs; None in place of a name marks data, for which the op's
    backward must return None. Random cotangents come from `rng`; `label` names the op.
    """
    value, backward = maths(*inputs)
    cotangents = [rng.standard_normal(output.shape) for output in as_tuple(value)]
    got = as_tuple(backward(*cotangents))

    def f(*moved):
        return as_tuple(maths(*moved)[0])

    rows = []
    for k, (input_name, gradient) in enumerate(zip(names, got, strict=True)):
        if input_name is None:
            if gradient is not None:
                raise ValueError(f"{label}: input {k} is data, but its backward gave a gradient")
            continue
        if gradient is None:
            raise ValueError(f"{label}: no gradient for {input_name}")
        gradient = gradient.dense() if hasattr(gradient, "dense") else gradient
        by_differences, by_complex_step = (
            relative_error(gradient, witness(f, inputs, k, cotangents)) for witness in (differences, complex_step)
        )
        rows.append(Row(label, input_name, by_differences, by_complex_step))
    return rows
