"""One step of the LSTM, from its pre-activations on: purely element-wise. Chapter 5."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module, fuse
from minidraw.ops.elementwise import columns, logistic


@primitive
def lstm(a, cell):
    """The gates, the memory and the output of an LSTM: (h, cell_new), both (batch, H).

    `a` (batch, 4 H) is [x, h] W + b with columns in the order i, f, o, g; `cell`
    (batch, H) is the memory. Forget gates, no peepholes: DRAW (5) and (7), chapter 5.

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)      (5.2)
        cell_new = f * cell + i * g                                             (5.3)
        h = o * tanh(cell_new)                                                  (5.4)
    """
    a_i, a_f, a_o, a_g = columns(a, [cell.shape[1]] * 4)
    h, cell_new, *kept = _forward(a_i, a_f, a_o, a_g, cell)

    def backward(dh, dcell_new):
        *da, dcell = _backward(dh, dcell_new, cell, *kept)
        return array_module(cell).concatenate(da, axis=1), dcell

    return (h, cell_new), backward


@fuse
def _forward(a_i, a_f, a_o, a_g, cell):
    """h, the new memory, the four gates, and the tanh of the memory."""
    xp = array_module(cell)
    i, f, o, g = logistic(a_i), logistic(a_f), logistic(a_o), xp.tanh(a_g)  # (5.2)
    cell_new = f * cell
    cell_new += i * g  # (5.3)
    squashed = xp.tanh(cell_new)
    return o * squashed, cell_new, i, f, o, g, squashed  # (5.4)


@fuse
def _backward(dh, dcell_new, cell, i, f, o, g, squashed):
    """The gradients of a_i, a_f, a_o, a_g, and of the memory before."""
    dcell = 1 - squashed * squashed
    dcell *= dh
    dcell *= o
    dcell += dcell_new  # (5.6): through h, and from the next step
    return (
        dcell * g * i * (1 - i),  # (5.7), (5.9)
        dcell * cell * f * (1 - f),  # (5.7), (5.9)
        dh * squashed * o * (1 - o),  # (5.5), (5.9)
        dcell * i * (1 - g * g),  # (5.7), (5.9)
        dcell * f,  # (5.8)
    )
