"""Reverse-mode automatic differentiation over arrays: a tape that knows no maths.

An op is a pure function of arrays that returns its value together with its
backward; `primitive` lifts it to Tensors and records it; `backward` walks the
record in reverse. Chapter 2.

The contract between an op and the tape:

* `op(*inputs, **settings)` returns `(value, backward)`; `value` is an array or a tuple of
  arrays. Inputs are positional; settings (sizes, an axis) are keywords, and have no gradient.
* `backward(*output_gradients)` returns one gradient for each input, in order, of
  the input's shape; None for an input that is data (an image, a noise).
* An output that nobody used has gradient zero, and its backward is handed zeros.
* Gradients are added into new arrays, never into one that an op returned.
"""

import contextlib
import functools
import heapq
import itertools

from minidraw.backend import array_module

_creation = itertools.count()
_recording = True


class Tensor:
    """An array, and where it comes from: output number `output` of `node`; node is None for a leaf or a constant."""

    __slots__ = ("value", "node", "output")

    def __init__(self, value, node=None, output=0):
        self.value = value
        self.node = node
        self.output = output

    @property
    def shape(self):
        return self.value.shape

    @property
    def source(self):
        """What its gradient is filed under: its node, or a leaf itself."""
        return self.node or self

    def __repr__(self):
        return f"Tensor({self.value!r})"


class Node:
    """One recorded call of an op: where its inputs came from, how gradients go back, and when it was made.

    It does not hold the inputs themselves: an array that no backward needs is freed at once.
    """

    __slots__ = ("created", "name", "inputs", "backward", "outputs")

    def __init__(self, name, inputs, backward, outputs):
        self.created = next(_creation)
        self.name = name
        self.inputs = inputs  # the origin of each: (source, output, shape), or None for a constant
        self.backward = backward
        self.outputs = outputs  # the (shape, dtype) of each


class Outer:
    """The gradient x^T dy of a weight, kept as its factors until all of them are known.

    A weight used T times has the gradient sum_t x_t^T dy_t, (5.11). Stacking the rows first
    makes that one product over T * batch rows, (5.12), in place of T products and T sums.
    """

    def __init__(self, x, dy):
        self.pairs = [(x, dy)]
        self.shape = (x.shape[1], dy.shape[1])

    def __add__(self, other):
        if not isinstance(other, Outer):
            return self.dense() + other
        total = Outer(*self.pairs[0])
        total.pairs = self.pairs + other.pairs
        return total

    __radd__ = __add__
    __array_ufunc__ = None  # so that array + Outer comes here, too

    def dense(self, out=None):
        """The product, written into `out` where that is given."""
        xp = array_module(self.pairs[0][0])
        if len(self.pairs) == 1:
            ((x, dy),) = self.pairs
        else:
            x, dy = (xp.concatenate(rows) for rows in zip(*self.pairs, strict=True))
        return xp.matmul(x.T, dy, out=out)


def _dense(gradient):
    return gradient.dense() if isinstance(gradient, Outer) else gradient


@contextlib.contextmanager
def no_grad():
    """Inside this context nothing is recorded: values only, and no memory kept for backward."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before


def primitive(op):
    """Lift `op`, a function of arrays returning `(value, backward)`, to Tensors.

    The lifted op returns a Tensor, or a tuple of them, and records itself if one of
    its inputs is a Tensor; inputs that are not Tensors are constants. The bare
    function stays at hand as `lifted.maths`.
    """

    name = op.__name__

    @functools.wraps(op)
    def lifted(*inputs, **settings):
        arrays = [i.value if isinstance(i, Tensor) else i for i in inputs]
        value, backward = op(*arrays, **settings)
        several = isinstance(value, tuple)
        values = value if several else (value,)
        node = None
        if _recording:
            origins = [(i.source, i.output, i.value.shape) if isinstance(i, Tensor) else None for i in inputs]
            if any(origins):
                node = Node(name, origins, backward, [(v.shape, v.dtype) for v in values])
        if not several:
            return Tensor(value, node)
        return tuple([Tensor(v, node, k) for k, v in enumerate(values)])

    lifted.maths = op
    return lifted


def backward(loss, parameters, into=None):
    """The gradient of `loss`, a scalar Tensor, with respect to each of `parameters`.

    Returns a list of arrays shaped like the parameters, zeros for one that `loss` does
    not depend on; they are new, or `into`, written over.

    Creation order is a topological order: whatever used a value was made
    after it. So the nodes that can be reached from the loss are visited newest first,
    and each has its whole gradient when its turn comes. A visited node lets go of all it
    kept, so memory falls as backward proceeds and the graph can be used only once.

    Raises ValueError for a loss that is not a scalar, RuntimeError for a graph that was
    used before, and ValueError for an op whose backward returns a wrong shape.
    """
    parameters = list(parameters)
    if loss.value.size != 1:
        raise ValueError(f"backward starts at a scalar loss, not at shape {loss.shape}: take its mean or sum first")
    xp = array_module(loss.value)
    wanted = {parameter.source for parameter in parameters}
    known = {}  # source -> for each of its outputs the sum of the gradients found so far, or None
    newest_first = []  # a heap of (-created, node): the nodes in `known` that were not visited yet
    node = loss.node  # whose inputs the arrivals belong to; the first belongs to the loss itself
    arrivals = [((loss.source, loss.output, loss.shape), xp.ones_like(loss.value))]
    while True:
        for origin, gradient in arrivals:
            if origin is None or gradient is None:
                continue
            source, output, shape = origin
            if gradient.shape != shape:
                raise ValueError(f"{node.name}: gradient of shape {gradient.shape} for an input of {shape}")
            sums = known.get(source)
            if sums is None:
                if isinstance(source, Node):
                    heapq.heappush(newest_first, (-source.created, source))
                    sums = known[source] = [None] * len(source.outputs)
                elif source in wanted:
                    sums = known[source] = [None]
                else:
                    continue
            before = sums[output]
            sums[output] = gradient if before is None else before + gradient  # (2.2)
        if not newest_first:
            break
        _, node = heapq.heappop(newest_first)
        if node.backward is None:
            raise RuntimeError("backward ran through this graph before and freed it: compute the loss afresh")
        sums = known[node] if node in wanted else known.pop(node)
        gradients = node.backward(
            *[_dense(g) if g is not None else xp.zeros(*like) for g, like in zip(sums, node.outputs, strict=True)]
        )
        if not isinstance(gradients, tuple):
            gradients = (gradients,)
        if len(gradients) != len(node.inputs):
            raise ValueError(f"{node.name}: backward gave {len(gradients)} gradients for {len(node.inputs)} inputs")
        arrivals = zip(node.inputs, gradients, strict=True)
        node.backward, node.inputs = None, ()
    found = [known[p.source][p.output] if p.source in known else None for p in parameters]
    if into is None:
        return [xp.zeros_like(p.value) if g is None else _dense(g) for p, g in zip(parameters, found, strict=True)]
    for place, gradient in zip(into, found, strict=True):
        if isinstance(gradient, Outer):
            gradient.dense(out=place)
        else:
            place[...] = 0 if gradient is None else gradient
    return into
