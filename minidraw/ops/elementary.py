"""The elementary ops: arithmetic with broadcasting, and what the composed twins are built of. Chapter 3.

Importing this room gives Tensor its operators: `a + b`, `a - b`, `a * b`, `a / b`, `-a`, `a @ b`.
"""

import itertools

import numpy as np

from minidraw.autodiff import Tensor, primitive
from minidraw.backend import array_module, fuse


@fuse
def logistic(a):
    """sigmoid(a) = 1 / (1 + e^-a) of an array. Where e^-a overflows, 1 / infinity is the 0 it should be."""
    with np.errstate(over="ignore"):
        return 1 / (1 + array_module(a).exp(-a))


def sum_to(gradient, shape):
    """Undo broadcasting, (3.3): `gradient` summed over what was stretched from `shape`."""
    if gradient.shape == shape:
        return gradient
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis] != 1)
    return gradient.sum(axis=stretched, keepdims=True)


def columns(a, widths):
    """The columns of `a` in parts as wide as `widths` say, as views."""
    stops = itertools.accumulate(widths)
    return [a[..., stop - width : stop] for width, stop in zip(widths, stops, strict=True)]


def _shape(a):
    """The shape of an array, () for a Python number. Asked for before backward, which then holds no array for it."""
    return getattr(a, "shape", ())


@primitive
def add(a, b):
    """a + b, broadcast."""
    shape_a, shape_b = _shape(a), _shape(b)

    def backward(dy):
        return sum_to(dy, shape_a), sum_to(dy, shape_b)

    return a + b, backward


@primitive
def subtract(a, b):
    """a - b, broadcast."""
    shape_a, shape_b = _shape(a), _shape(b)

    def backward(dy):
        return sum_to(dy, shape_a), sum_to(-dy, shape_b)

    return a - b, backward


@primitive
def multiply(a, b):
    """a * b, broadcast."""

    def backward(dy):
        return sum_to(dy * b, _shape(a)), sum_to(dy * a, _shape(b))

    return a * b, backward


@primitive
def divide(a, b):
    """a / b, broadcast."""
    y = a / b

    def backward(dy):
        return sum_to(dy / b, _shape(a)), sum_to(-dy * y / b, _shape(b))

    return y, backward


@primitive
def exp(a):
    """e^a."""
    y = array_module(a).exp(a)

    def backward(dy):
        return dy * y

    return y, backward


@primitive
def log(a):
    """The natural logarithm of a, for a > 0."""

    def backward(dy):
        return dy / a

    return array_module(a).log(a), backward


@primitive
def tanh(a):
    """The hyperbolic tangent of a."""
    y = array_module(a).tanh(a)

    def backward(dy):
        return dy * (1 - y * y)

    return y, backward


@primitive
def sigmoid(a):
    """1 / (1 + e^-a)."""
    y = logistic(a)

    def backward(dy):
        return dy * y * (1 - y)  # (3.2)

    return y, backward


@primitive
def matmul(a, b):
    """a @ b: matrices, or equally long stacks of matrices."""

    def backward(dy):
        return dy @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ dy

    return a @ b, backward


@primitive
def sum(a, *, axis=None):
    """The sum of a over `axis`, an int or a tuple of them (None: over everything)."""

    def backward(dy):
        if axis is not None:
            dy = array_module(a).expand_dims(dy, axis)
        return array_module(a).broadcast_to(dy, a.shape)

    return a.sum(axis=axis), backward


@primitive
def reshape(a, *, shape):
    """a in another shape, row-major."""

    def backward(dy):
        return dy.reshape(a.shape)

    return a.reshape(shape), backward


@primitive
def concat(*parts):
    """The columns of each part, side by side: parts (..., X_k) give (..., sum of X_k)."""
    widths = [part.shape[-1] for part in parts]

    def backward(dy):
        return tuple(columns(dy, widths))

    return array_module(parts[0]).concatenate(parts, axis=-1), backward


@primitive
def split(a, *, widths):
    """The columns of a (..., sum of widths), in parts (..., width): the reverse of concat."""

    def backward(*dparts):
        return array_module(a).concatenate(dparts, axis=-1)

    return tuple(columns(a, widths)), backward


@primitive
def split_rows(a, *, first):
    """The first rows of a, and the others."""

    def backward(*dparts):
        return array_module(a).concatenate(dparts)

    return (a[:first], a[first:]), backward


def mean(a):
    """The mean over everything."""
    return sum(a) * (1 / a.value.size)


Tensor.__add__ = add
Tensor.__radd__ = lambda a, b: add(b, a)
Tensor.__sub__ = subtract
Tensor.__rsub__ = lambda a, b: subtract(b, a)
Tensor.__mul__ = multiply
Tensor.__rmul__ = lambda a, b: multiply(b, a)
Tensor.__truediv__ = divide
Tensor.__rtruediv__ = lambda a, b: divide(b, a)
Tensor.__neg__ = lambda a: multiply(-1, a)
Tensor.__matmul__ = matmul
Tensor.mean = mean
Tensor.sum = sum
Tensor.__array_ufunc__ = None  # so that array + Tensor comes here, too
