"""Adam (Kingma & Ba 2015, Algorithm 1), and the clip by global norm. Chapter 7."""

from minidraw.backend import array_module


def global_norm(gradients):
    """The Euclidean norm of all `gradients` taken as one long vector, a 0-d array."""
    total = 0
    for g in gradients:
        total = total + array_module(g).vdot(g, g)
    return total**0.5


def clip(gradients, largest):
    """Scale all `gradients` by one factor so that their global norm is at most `largest`: (gradients, norm).

    One factor for all keeps the direction of the step; a norm for each tensor would turn it.
    `norm` is the one before clipping, a 0-d array. The result is in new arrays.
    """
    norm = global_norm(gradients)
    factor = array_module(norm).minimum(1, largest / (norm + 1e-12))
    return [g * factor for g in gradients], norm


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

    def step(self, gradients, learning_rate):
        """One step against `gradients`, arrays shaped like the parameters and in their order."""
        self.t += 1
        correction1, correction2 = 1 - self.beta1**self.t, 1 - self.beta2**self.t
        for p, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
            xp = array_module(p)
            m *= self.beta1
            m += (1 - self.beta1) * g
            v *= self.beta2
            scratch = g * g
            scratch *= 1 - self.beta2
            v += scratch
            xp.sqrt(v, out=scratch)
            scratch *= correction2**-0.5
            scratch += self.eps  # outside the root
            xp.divide(m, scratch, out=scratch)
            scratch *= learning_rate / correction1
            p -= scratch
