"""The canvas as logits: what it costs the image, and what it lacks of it. Chapters 4 and 9."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module, fuse
from minidraw.ops.elementary import logistic


@primitive
def bernoulli(logits, x):
    """-log D(x | c) in nats, (batch,), from logits c and images x, (batch, pixels).

    DRAW (9): the sum over pixels of softplus(c) - x c, (4.4), with softplus in the form
    (4.5), which is finite for every logit; x is data, in [0, 1]. Chapter 4.
    """

    def backward(dnats):
        return dnats[:, None] * (logistic(logits) - x), None  # (4.6)

    return (softplus(logits) - x * logits).sum(axis=1), backward


def softplus(c):
    """log(1 + e^c) as max(c, 0) + log(1 + e^-|c|), (4.5), of an array."""
    xp = array_module(c)
    size = c * xp.sign(c.real)  # |c|, of the real part: so that the complex step can pass
    return (c + size) / 2 + xp.log1p(xp.exp(-size))


@primitive
def error_image(x, c):
    """x_hat = x - sigmoid(c), what the canvas c lacks of the image x, both (batch, pixels); x is data.

    DRAW (3), (9.1). It is also minus the gradient of `bernoulli`: the way the canvas should move. Chapter 9.
    """
    x_hat, p = _missing(c, x)

    def backward(dx_hat):
        return None, _dc(dx_hat, p)

    return x_hat, backward


@fuse
def _missing(c, x):
    """x_hat, and p = sigmoid(c); all arrays (batch, pixels)."""
    p = logistic(c)
    return x - p, p


@fuse
def _dc(dx_hat, p):
    return -dx_hat * p * (1 - p)  # (9.2)
