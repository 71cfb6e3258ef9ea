"""The affine map: the only op that owns weights. Chapters 3 and 5."""

from minidraw.autodiff import Outer, primitive
from minidraw.ops.elementwise import widen


@primitive
def affine(x, W, b):
    """y = x W + b, (3.4): x (batch, X), W (X, Y), b (Y,) give y (batch, Y); b may also be (batch, Y). Chapter 3.

    The last columns of x may be missing, and count as zeros, like a state before its first step: nobody multiplies
    them by W.
    """
    one_for_all = b.ndim == 1
    rows = W[: x.shape[1]]

    def backward(dy):
        db = dy.sum(axis=0) if one_for_all else dy
        return dy @ rows.T, Outer(widen(x, len(W)), dy), db  # (3.6), (3.7), (3.5)

    return x @ rows + b, backward
