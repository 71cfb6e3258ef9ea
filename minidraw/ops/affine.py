"""The affine map: the only op that owns weights. Chapters 3 and 5.

Its results lie in memory batch last: y (batch, Y) is the transpose of a row-major array (Y, batch). NumPy's
products are a little faster that way, and the columns of a gate, or of one map of several, lie together. Chapter 15.
"""

from minidraw.autodiff import Outer, primitive
from minidraw.ops.elementwise import column_sums, widen


@primitive
def affine(x, W, b):
    """y = x W + b, (3.4): x (batch, X), W (X, Y), b (Y,) give y (batch, Y); b may also be (batch, Y). Chapter 3.

    The last columns of x may be missing, and count as zeros, like a state before its first step: nobody multiplies
    them by W.
    """
    one_for_all = b.ndim == 1
    rows = W[: x.shape[1]]
    y = (rows.T @ x.T).T + b

    def backward(dy):
        db = column_sums(dy) if one_for_all else dy
        return (rows @ dy.T).T, Outer(widen(x, len(W)), dy), db  # (3.6), (3.7), (3.5)

    return y, backward
