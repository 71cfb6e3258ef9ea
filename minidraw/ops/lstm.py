"""One step of the LSTM, from its pre-activations on: purely element-wise. Chapter 5."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module
from minidraw.ops.elementwise import columns, logistic_of_minus, squash


@primitive
def lstm(a, cell):
    """The gates, the memory and the output of an LSTM: (h, cell_new), both (batch, H).

    `a` (batch, 4 H) is [x, h] W + b with columns in the order i, f, o, g; `cell`
    (batch, H) is the memory. Forget gates, no peepholes: DRAW (5) and (7), chapter 5.

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)      (5.2)
        cell_new = f * cell + i * g                                             (5.3)
        h = o * tanh(cell_new)                                                  (5.4)
    """
    xp, quarters = array_module(a), [cell.shape[1]] * 4
    gates = -a
    *_, g = columns(gates, quarters)
    g *= 2  # (5.13): so all four gates take one pass of exp
    i, f, o, g = columns(logistic_of_minus(gates), quarters)
    g *= 2
    g -= 1
    cell_new = f * cell + i * g
    squashed = squash(cell_new)

    def backward(dh, dcell_new):
        dcell = 1 - squashed * squashed
        dcell *= dh * o
        dcell += dcell_new  # (5.6): through h, and from the next step
        da = 1 - gates
        da *= gates  # the slope of a sigmoid, (5.9)
        da_i, da_f, da_o, da_g = columns(da, quarters)
        da_i *= dcell * g  # (5.7)
        da_f *= dcell * cell  # (5.7)
        da_o *= dh * squashed  # (5.5)
        xp.multiply(dcell * i, 1 - g * g, out=da_g)  # (5.7), (5.9)
        dcell *= f  # (5.8)
        return da, dcell

    return (o * squashed, cell_new), backward
