"""Adam (Kingma & Ba 2015, Algorithm 1), and the clip by global norm. Chapter 7."""

import numpy as np

from minidraw.backend import array_module, fuse

BLOCK = 2**16  # numbers: what a step of Adam takes up of them at a time fits into the cache of a core


def global_norm(gradients):
    """The Euclidean norm of all `gradients` taken as one long vector, a 0-d array."""
    squares = sum(g.ravel() @ g.ravel() for g in gradients)
    return array_module(squares).sqrt(squares)


def clip_factor(norm, largest):
    """What all gradients are multiplied by to have a global norm of at most `largest`, where it is `norm`, (7.7).

    One factor for all keeps the direction of the step; a norm for each tensor would turn it. All are 0-d arrays.
    """
    return array_module(norm).minimum(1, largest / (norm + 1e-12))


class Adam:
    """The state of Adam: the moments `m` and `v` of every parameter, and the number `t` of steps done."""

    def __init__(self, parameters, beta1=0.9, beta2=0.999, eps=1e-8):
        """`parameters` are arrays; `step` changes them in place."""
        self.parameters = list(parameters)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.t = 0
        self.m = [array_module(p).zeros_like(p) for p in self.parameters]
        self.v = [array_module(p).zeros_like(p) for p in self.parameters]

    def restore(self, t, m, v):
        """Go on from a saved state: `t` steps done, moments `m` and `v`, arrays in the parameters' order."""
        self.t, self.m, self.v = t, list(m), list(v)

    def step(self, gradients, learning_rate, factor=1):
        """One step against `factor` times `gradients`, arrays shaped like the parameters and in their order."""
        self.t += 1
        c = (1 - self.beta2**self.t) ** 0.5
        shares = self.beta1, (1 - self.beta1) * factor, self.beta2, (1 - self.beta2) * factor * factor
        rate = learning_rate * c / (1 - self.beta1**self.t)
        for arrays in zip(self.parameters, gradients, self.m, self.v, strict=True):
            for block in _blocks(arrays):
                _update(*block, *shares, rate, c * self.eps)


@fuse
def _update(p, g, m, v, beta1, share1, beta2, share2, rate, c_eps):
    """Algorithm 1, (7.2) and (7.5), for some of the parameters, in place.

    The gradient is factor * g, so the new shares are (1 - beta1) factor of g, and (1 - beta2) factor^2 of its square.
    With c = sqrt(1 - beta2^t), the divisor sqrt(v^) + eps of (7.5) is (sqrt(v) + c eps) / c: a pass less.
    """
    xp = array_module(p)
    m *= beta1
    m += share1 * g
    v *= beta2
    scratch = g * g
    scratch *= share2
    v += scratch
    xp.sqrt(v, scratch)
    scratch += c_eps  # outside the root
    xp.divide(m, scratch, scratch)
    scratch *= rate
    p -= scratch


def _blocks(arrays):
    """The same rows of each of `arrays`, some BLOCK numbers at a time, as views; on a GPU all rows at once."""
    if not isinstance(arrays[0], np.ndarray):
        yield arrays
        return
    rows = max(1, BLOCK * len(arrays[0]) // arrays[0].size)
    for start in range(0, len(arrays[0]), rows):
        yield [array[start : start + rows] for array in arrays]
