"""Adam (Kingma & Ba 2015, Algorithm 1), and the clip by global norm. Chapter 7."""

import numpy as np

from minidraw.backend import array_module, fuse


def global_norm(gradients):
    """The Euclidean norm of all `gradients` taken as one long vector, a 0-d array."""
    squares = sum(g.ravel() @ g.ravel() for g in gradients)
    return array_module(squares).sqrt(squares)


def clip_factor(norm, largest):
    """The factor that brings gradients of norm `norm` down to `largest`, (7.7), or 1.

    One factor for all keeps their direction; one for each tensor would turn it. All are
    0-d arrays.
    """
    return array_module(norm).minimum(1, largest / (norm + 1e-12))


class Adam:
    """The state of Adam: the moments `m` and `v` of every parameter, and the number `t` of updates done.

    m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2             (7.2)
    m^ = m / (1 - beta1^t),  v^ = v / (1 - beta2^t)                         (7.4)
    theta = theta - learning_rate m^ / (sqrt(v^) + eps)                     (7.5)
    """

    def __init__(self, parameters, beta1=0.9, beta2=0.999, eps=1e-8):
        """`parameters` are arrays; `update` changes them in place."""
        self.parameters = list(parameters)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.t = 0
        self.m = [array_module(p).zeros_like(p) for p in self.parameters]
        self.v = [array_module(p).zeros_like(p) for p in self.parameters]

    def restore(self, t, m, v):
        """Go on from a saved state: `t` updates done, moments `m` and `v`, arrays in the parameters' order."""
        self.t, self.m, self.v = t, list(m), list(v)

    def update(self, gradients, learning_rate):
        """One step down `gradients`, shaped like the parameters and in their order."""
        self.t += 1
        numbers = (
            *(self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2),
            *(1 - self.beta1**self.t, 1 - self.beta2**self.t, learning_rate, self.eps),
        )
        with np.errstate(all="ignore"):  # what overflows shows in the next loss
            for arrays in zip(self.parameters, gradients, self.m, self.v, strict=True):
                for block in _blocks(arrays):
                    _update(*block, *numbers)


BLOCK = 2**14  # elements


def _blocks(arrays):
    """Equally shaped arrays in blocks, one after the other, each a view of all of them.

    `_update` goes over its arrays a dozen times. On a CPU the memory would be waited for each time; a block stays in
    the cache (chapter 15). On a GPU they are one block, and one launch.
    """
    if array_module(arrays[0]) is not np:
        return [arrays]
    flat = [array.reshape(-1) for array in arrays]
    return [[array[k : k + BLOCK] for array in flat] for k in range(0, flat[0].size, BLOCK)]


@fuse
def _update(p, g, m, v, beta1, gain1, beta2, gain2, correction1, correction2, learning_rate, eps):
    """p, m and v, arrays of one shape, in place.

    gain1 is 1 - beta1, correction1 is 1 - beta1^t, and so on.
    """
    m *= beta1
    m += gain1 * g  # (7.2)
    v *= beta2
    v += gain2 * g * g  # (7.2)
    p -= learning_rate * (m / correction1) / (array_module(p).sqrt(v / correction2) + eps)  # (7.4), (7.5)
