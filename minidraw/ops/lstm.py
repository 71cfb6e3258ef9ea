"""One step of the LSTM, from its pre-activations on: purely element-wise. Chapter 5."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module
from minidraw.ops.elementwise import logistic


@primitive
def lstm(a, cell):
    """The gates, the memory and the output of an LSTM: (h, cell_new), both (batch, H).

    `a` (batch, 4 H) is [x, h] W + b with columns in the order i, f, o, g; `cell`
    (batch, H) is the memory. Forget gates, no peepholes: DRAW (5) and (7), chapter 5.

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)
        cell_new = f * cell + i * g
        h = o * tanh(cell_new)
    """
    xp, H, shape = array_module(a), cell.shape[1], a.shape  # backward holds the gates, and not a
    gates = logistic(a[:, : 3 * H])
    i, f, o = gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H :]
    g = xp.tanh(a[:, 3 * H :])
    cell_new = f * cell + i * g
    squashed = xp.tanh(cell_new)

    def backward(dh, dcell_new):
        dcell_new = dcell_new + dh * o * (1 - squashed * squashed)  # from the next step, and through h
        da = xp.empty_like(gates, shape=shape)
        xp.multiply(dcell_new, g, out=da[:, :H])  # di, df, do side by side ...
        xp.multiply(dcell_new, cell, out=da[:, H : 2 * H])
        xp.multiply(dh, squashed, out=da[:, 2 * H : 3 * H])
        da[:, : 3 * H] *= gates * (1 - gates)  # ... and through the three sigmoids at once
        xp.multiply(dcell_new * i, 1 - g * g, out=da[:, 3 * H :])
        return da, dcell_new * f

    return (o * squashed, cell_new), backward
