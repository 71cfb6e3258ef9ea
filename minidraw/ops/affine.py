"""The affine map: the only op that owns weights. Chapters 3 and 5."""

from minidraw.autodiff import Outer, primitive


@primitive
def affine(x, W, b):
    """y = x W + b: x (batch, X), W (X, Y), b (Y,) give y (batch, Y). Chapter 3."""

    def backward(dy):
        return dy @ W.T, Outer(x, dy), dy.sum(axis=0)

    return x @ W + b, backward
