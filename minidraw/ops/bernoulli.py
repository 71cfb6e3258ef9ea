"""The canvas as logits: what it costs the image, and what it lacks of it. Chapters 4 and 9."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module, fuse
from minidraw.ops.elementwise import logistic


@primitive
def bernoulli(logits, x):
    """-log D(x | c) in nats, (batch,): logits c and image x in [0, 1], both (batch, pixels).

    DRAW (9): the sum over pixels of softplus(c) - x c, (4.4), with softplus in the form (4.5),
    which is finite for every logit; x is data. Chapter 4.
    """
    xp = array_module(logits)
    size = logits * xp.sign(logits.real)  # |c|, of the real part: so that the complex step can pass
    nats = xp.exp(-size)
    nats += 1
    xp.log(nats, out=nats)
    size += logits
    size *= 0.5  # max(c, 0)
    nats += size  # softplus(c), (4.5)
    nats -= x * logits  # (4.4)

    def backward(dnats):
        return dnats[:, None] * (logistic(logits) - x), None  # (4.6)

    return nats.sum(axis=1), backward


@primitive
def error_image(x, c):
    """x_hat = x - sigmoid(c), what the canvas c lacks of the image x, both (batch, pixels); x is data.

    DRAW (3), (9.1). It is also minus the gradient of `bernoulli`: the way the canvas should move. Chapter 9.
    """
    x_hat, mean = _missing(c, x)

    def backward(dx_hat):
        return None, _dc(dx_hat, mean)

    return x_hat, backward


@fuse
def _missing(c, x):
    """x_hat, and the mean that the canvas stands for."""
    mean = logistic(c)
    return x - mean, mean


@fuse
def _dc(dx_hat, mean):
    dc = mean - 1
    dc *= mean
    dc *= dx_hat  # (9.2)
    return dc
