"""The cost of the image itself, from logits. Chapter 4."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module
from minidraw.ops.elementwise import logistic


@primitive
def bernoulli(logits, x):
    """-log D(x | c) in nats, (batch,): logits c and image x in [0, 1], both (batch, pixels).

    DRAW (9): sum over pixels of softplus(c) - x c, in a form that stays finite for every
    logit; x is data. Chapter 4.
    """
    xp = array_module(logits)
    positive = logits.real > 0  # the real part: so that the complex step can pass
    softplus = xp.where(positive, logits, 0) + xp.log1p(xp.exp(xp.where(positive, -logits, logits)))

    def backward(dnats):
        return dnats[:, None] * (logistic(logits) - x), None

    return (softplus - x * logits).sum(axis=1), backward
