"""One step of the LSTM, from its pre-activations on: purely element-wise. Chapter 5."""

import numpy as np

from minidraw.autodiff import primitive
from minidraw.backend import array_module, fuse
from minidraw.ops.elementwise import columns, squash


@primitive
def lstm(a, cell):
    """The gates, the memory and the output of an LSTM: (h, cell_new), both (batch, H).

    `a` (batch, 4 H) is [x, h] W + b with columns in the order i, f, o, g; `cell`
    (batch, H) is the memory. Forget gates, no peepholes: DRAW (5) and (7), chapter 5.

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)      (5.2)
        cell_new = f * cell + i * g                                             (5.3)
        h = o * tanh(cell_new)                                                  (5.4)
    """
    H = cell.shape[1]
    letters = -a
    i, f, o, g = columns(letters, [H] * 4)
    g *= 2  # (5.13): so one pass of exp serves all four
    _sigmoids(letters)
    h, cell_new, squashed = _outcome(i, f, o, g, cell)

    def backward(dh, dcell_new):
        da, dcell = _slopes(letters), _dcell(dh, dcell_new, o, squashed)
        da_i, da_f, da_o, da_g = columns(da, [H] * 4)
        _chain(da_i, da_f, da_o, da_g, i, f, g, cell, squashed, dh, dcell)
        return da, dcell

    return (h, cell_new), backward


@fuse
def _sigmoids(y):
    """In place: 1 / (1 + e^y), which is sigmoid(-y)."""
    xp = array_module(y)
    with np.errstate(over="ignore"):
        xp.exp(y, y)
    y += 1
    xp.divide(1, y, y)


@fuse
def _outcome(i, f, o, g, cell):
    """h, the new memory, and its tanh; `g` comes as sigmoid(2 a_g), and becomes tanh(a_g) in place."""
    g *= 2
    g -= 1  # (5.13)
    cell_new = f * cell
    cell_new += i * g  # (5.3)
    squashed = squash(cell_new)
    return o * squashed, cell_new, squashed  # (5.4)


@fuse
def _dcell(dh, dcell_new, o, squashed):
    """The gradient of the new memory, (5.6): through h, and from the next step."""
    dcell = 1 - squashed * squashed
    dcell *= dh * o
    dcell += dcell_new
    return dcell


@fuse
def _slopes(letters):
    """The slope of a sigmoid, (5.9), by its value."""
    da = 1 - letters
    da *= letters
    return da


@fuse
def _chain(da_i, da_f, da_o, da_g, i, f, g, cell, squashed, dh, dcell):
    """In place: slopes become the gradients of the pre-activations, and `dcell` that of the memory before."""
    da_i *= dcell * g  # (5.7)
    da_f *= dcell * cell  # (5.7)
    da_o *= dh * squashed  # (5.5)
    array_module(dcell).multiply(dcell * i, 1 - g * g, da_g)  # (5.7), (5.9)
    dcell *= f  # (5.8)
