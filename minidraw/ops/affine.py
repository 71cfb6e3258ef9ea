"""The affine map: the only op that owns weights. Chapters 3 and 5."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module
from minidraw.errors import BadInput


@primitive
def affine(x, W, b):
    """y = x W + b, (3.4), of shape (batch, Y). Chapter 3.

    x (batch, X), W (X, Y), and b (Y,) or (batch, Y). Raises BadInput for other shapes.
    """
    _check(x, W, b)
    bias_per_row = b.ndim == 2

    def backward(dy):
        return dy @ W.T, FactoredGradient((x, dy)), dy if bias_per_row else dy.sum(axis=0)  # (3.6), (3.7), (3.5)

    return x @ W + b, backward


class FactoredGradient:
    """The gradient x^T dy of a weight, kept as its factors until all of them are known.

    A weight used T times has the gradient sum_t x_t^T dy_t, (5.11). Stacking the rows
    first makes that one product over T * batch rows, (5.12), in place of T products and
    T sums. It stands for an array; `autodiff` states the contract of such a gradient.
    """

    __array_ufunc__ = None  # so that array + FactoredGradient comes here, too

    def __init__(self, *pairs):
        """`pairs` of (x, dy): x (rows, X), dy (rows, Y), for a weight (X, Y)."""
        self.pairs = pairs
        x, dy = pairs[0]
        self.shape = x.shape[1], dy.shape[1]

    def __add__(self, other):
        if isinstance(other, FactoredGradient):
            return FactoredGradient(*self.pairs, *other.pairs)
        return self.dense() + other

    __radd__ = __add__

    def dense(self):
        """The array (X, Y)."""
        xp = array_module(self.pairs[0][0])
        x, dy = (rows[0] if len(rows) == 1 else xp.concatenate(rows) for rows in zip(*self.pairs, strict=True))
        return x.T @ dy  # (5.12)


@primitive
def plain_affine(x, W, b):
    """`affine` with the gradient of W as (3.7) says it, one product at every use."""
    _check(x, W, b)
    bias_per_row = b.ndim == 2

    def backward(dy):
        return dy @ W.T, x.T @ dy, dy if bias_per_row else dy.sum(axis=0)  # (3.6), (3.7), (3.5)

    return x @ W + b, backward


@primitive
def masked_affine(x, W, b, mask):
    """y = x (M * W) + b, (19.5): `affine` of a weight W (X, Y) that counts only where the mask M, zeros and ones, is 1.

    With M strictly upper triangular y_j depends on x_1 ... x_(j-1) alone. The mask is data. Raises BadInput for other
    shapes. Chapter 19.
    """
    _check(x, W, b)
    if mask.shape != W.shape:
        raise BadInput(f"masked_affine: mask {mask.shape} and W {W.shape} should have one shape")
    y, backward_of_affine = plain_affine.on_arrays(x, mask * W, b)

    def backward(dy):
        dx, dW, db = backward_of_affine(dy)
        return dx, mask * dW, db, None  # (19.6)

    return y, backward


def _check(x, W, b):
    if x.ndim != 2 or W.ndim != 2 or x.shape[1] != len(W) or b.shape not in (W.shape[1:], (len(x), W.shape[1])):
        raise BadInput(f"affine: x {x.shape}, W {W.shape} and b {b.shape} should be (n, X), (X, Y) and (Y,) or (n, Y)")
