"""Reverse-mode automatic differentiation over arrays: a tape that knows no mathematics. Chapter 2.

An op is a pure function of arrays that returns its value together with its backward; `primitive` lifts it to
Tensors and records it as a Node; `backward` visits the nodes, newest first.

The contract between an op and the tape:

* `op(*inputs, **settings)` returns `(value, backward)`; `value` is an array or a tuple of arrays. Inputs are
  positional; settings (sizes, an axis) are keywords, and have no gradient.
* `backward(*output_gradients)` returns one gradient for each input, in order, of the input's shape; None for an
  input that is data (an image, a noise).
* An output that was not used has gradient zero, and its op's backward is given zeros.
* A gradient is an array, or stands for one: then it has a `shape`, can be added (`a + b`, to its own kind and to
  arrays, on either side), and `dense()` makes the array. `ops.affine` returns one for its weight.
* Gradients are added into new arrays, never into one that an op returned.
"""

import contextlib
import functools
import heapq
import itertools

from minidraw.backend import array_module
from minidraw.errors import BadInput

_creation = itertools.count()
_recording = True
_intercept = None


class Tensor:
    """An array, and where it comes from: output number `output` of `node`."""

    __slots__ = ("value", "node", "output")

    def __init__(self, value, node=None, output=0):
        self.value = value
        self.node = node or Node("leaf", (), None, [(value.shape, value.dtype)])
        self.output = output

    @property
    def shape(self):
        return self.value.shape

    def __repr__(self):
        return f"Tensor({self.value!r})"


class Node:
    """One recorded call of an op: where its inputs came from, how gradients go back, and when it was created.

    A leaf (a parameter, a constant) has no inputs, and None for its backward. A node does not hold its inputs
    themselves: an array that no backward needs is freed at once.
    """

    __slots__ = ("created", "name", "inputs", "backward", "outputs")

    def __init__(self, name, inputs, backward, outputs):
        self.created = next(_creation)
        self.name = name
        self.inputs = inputs  # of each: (node, output), or None for what is no Tensor
        self.backward = backward
        self.outputs = outputs  # of each: (shape, dtype)


@contextlib.contextmanager
def no_grad():
    """Inside this context nothing is recorded: values only, and no memory kept for backward."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before


@contextlib.contextmanager
def intercept(wrapper):
    """Inside this context `wrapper(op)` is called in place of every bare `op`: to time it, or to put another there."""
    global _intercept
    before, _intercept = _intercept, wrapper
    try:
        yield
    finally:
        _intercept = before


def primitive(op):
    """Lift `op`, a function of arrays returning `(value, backward)`, to Tensors.

    The lifted op returns a Tensor, or a tuple of them, and records itself if one of its inputs is a Tensor; inputs
    that are not Tensors are constants. The bare function stays at hand as `lifted.on_arrays`.
    """

    @functools.wraps(op)
    def lifted(*inputs, **settings):
        run = op if _intercept is None else _intercept(op)
        arrays = [i.value if isinstance(i, Tensor) else i for i in inputs]
        value, backward = run(*arrays, **settings)
        values = value if isinstance(value, tuple) else (value,)
        node = None
        if _recording:
            origins = [(i.node, i.output) if isinstance(i, Tensor) else None for i in inputs]
            if any(origins):
                node = Node(op.__name__, origins, backward, [(v.shape, v.dtype) for v in values])
        tensors = tuple([Tensor(v, node, k) for k, v in enumerate(values)])
        return tensors if isinstance(value, tuple) else tensors[0]

    lifted.on_arrays = op
    return lifted


def backward(loss, parameters):
    """The gradient of `loss`, a scalar Tensor, with respect to each of `parameters`.

    Returns a list of arrays shaped like the parameters, zeros for one that `loss` does
    not depend on.

    Creation order is a topological order: whatever used a value was created after it.
    So the nodes that can be reached from the loss are visited newest first, and each
    has its whole gradient when its turn comes. A visited node lets go of all it kept,
    so memory falls as backward proceeds and the graph can be used only once.

    Raises BadInput for a loss that is not a scalar, a graph that was used before, and
    an op whose backward returns a wrong number of gradients or a wrong shape.
    """
    parameters = list(parameters)
    if loss.value.size != 1:
        raise BadInput(f"backward starts at a scalar loss, not at shape {loss.shape}: take its mean or sum first")
    wanted = {parameter.node for parameter in parameters}
    sums = {}  # node -> for each of its outputs the sum of the gradients that have arrived, or None
    newest_first = []  # a heap of (-created, node): the nodes in `sums` that are still to be visited

    def accumulate(node, output, gradient):
        if node not in sums:
            sums[node] = [None] * len(node.outputs)
            if node.backward is not None:
                heapq.heappush(newest_first, (-node.created, node))
        before = sums[node][output]
        sums[node][output] = gradient if before is None else before + gradient  # (2.2)

    def visit(node):
        arrived = sums[node] if node in wanted else sums.pop(node)
        for origin, gradient in zip(node.inputs, _input_gradients(node, arrived), strict=True):
            if origin is not None and gradient is not None:
                accumulate(*origin, gradient)
        node.inputs, node.backward = (), _used_before

    accumulate(loss.node, loss.output, array_module(loss.value).ones_like(loss.value))
    while newest_first:
        _, node = heapq.heappop(newest_first)
        visit(node)
    return [_collect(sums.get(parameter.node), parameter) for parameter in parameters]


def dense(gradient):
    """A gradient as an array: itself, or the array it stands for."""
    return gradient.dense() if hasattr(gradient, "dense") else gradient


def _input_gradients(node, arrived):
    """What a node's backward makes of the gradients that arrived at its outputs: one for each input, checked."""
    arrived = [None if gradient is None else dense(gradient) for gradient in arrived]
    xp = array_module(next(gradient for gradient in arrived if gradient is not None))
    gradients = node.backward(
        *(xp.zeros(*like) if g is None else g for g, like in zip(arrived, node.outputs, strict=True))
    )
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if len(gradients) != len(node.inputs):
        raise BadInput(f"{node.name}: backward gave {len(gradients)} gradients for {len(node.inputs)} inputs")
    for origin, gradient in zip(node.inputs, gradients, strict=True):
        if origin is not None and gradient is not None:
            source, output = origin
            shape, _ = source.outputs[output]
            if gradient.shape != shape:
                raise BadInput(f"{node.name}: gradient of shape {gradient.shape} for an input of {shape}")
    return gradients


def _collect(arrived, parameter):
    """The gradient of a parameter, an array, from what has arrived at its node (None: nothing)."""
    gradient = None if arrived is None else arrived[parameter.output]
    return array_module(parameter.value).zeros_like(parameter.value) if gradient is None else dense(gradient)


def _used_before(*_):
    """The backward of a node that was visited."""
    raise BadInput("backward ran through this graph before and freed it: compute the loss afresh")
