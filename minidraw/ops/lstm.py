"""One step of the LSTM, from its pre-activations on: purely element-wise. Chapter 5."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module, fuse
from minidraw.ops.elementary import columns, logistic


@primitive
def lstm(a, cell):
    """The gates, the memory and the output of an LSTM: (h, cell_new), both (batch, H).

    `a` (batch, 4 H) is [x, h] W + b with columns in the order i, f, o, g; `cell`
    (batch, H) is the memory. Forget gates, no peepholes: DRAW (5) and (7), chapter 5.

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)      (5.2)
        u = f * cell + i * g,  cell_new = u                                     (5.3)
        h = o * s,  s = tanh(u)                                                 (5.4)
    """
    h, cell_new, i, f, o, g, s = _forward(*columns(a, [cell.shape[1]] * 4), cell)

    def backward(dh, dcell_new):
        *da, dcell = _backward(dh, dcell_new, cell, i, f, o, g, s)
        return array_module(cell).concatenate(da, axis=1), dcell

    return (h, cell_new), backward


@fuse
def _forward(a_i, a_f, a_o, a_g, cell):
    """All arrays (batch, H)."""
    xp = array_module(cell)
    i, f, o, g = logistic(a_i), logistic(a_f), logistic(a_o), xp.tanh(a_g)  # (5.2)
    u = f * cell + i * g  # (5.3): the new memory
    s = xp.tanh(u)
    h = o * s  # (5.4)
    return h, u, i, f, o, g, s


@fuse
def _backward(dh, dcell_new, cell, i, f, o, g, s):
    """The gradients of a_i, a_f, a_o, a_g and the memory before; all arrays (batch, H)."""
    do = dh * s  # (5.5)
    du = dcell_new + dh * o * (1 - s * s)  # (5.6): from the next step, and through h
    di, df, dg = du * g, du * cell, du * i  # (5.7)
    dcell = du * f  # (5.8)
    return di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g * g), dcell  # (5.9)
