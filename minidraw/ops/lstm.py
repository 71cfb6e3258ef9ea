"""One step of the LSTM, from its pre-activations on: purely element-wise. Chapter 5."""

import functools

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
    letters = _letters(a, _steepness(array_module(a), a.real.dtype, H))
    i, f, o, g = columns(letters, [H] * 4)
    h, cell_new, squashed = _outcome(i, f, o, g, cell)

    def backward(dh, dcell_new):
        da, dcell = _slopes(letters), _dcell(dh, dcell_new, o, squashed)
        da_i, da_f, da_o, da_g = columns(da, [H] * 4)
        _chain(da_i, da_f, da_o, da_g, i, f, g, cell, squashed, dh, dcell)
        return da, dcell

    return (h, cell_new), backward


@functools.cache
def _steepness(xp, dtype, H):
    """1 for each column of i, f and o, which are sigmoids; 2 for those of g, a sigmoid twice as steep and high."""
    s = xp.ones(4 * H, dtype)
    s[3 * H :] = 2
    return s


@fuse
def _letters(a, s):
    """i, f, o, g side by side, (5.2): s sigmoid(s a) + 1 - s is a sigmoid where s = 1, a tanh where s = 2, (5.13)."""
    xp, y = array_module(a), -s * a
    with np.errstate(over="ignore"):
        xp.exp(y, y)
    y += 1
    xp.divide(s, y, y)
    y += 1 - s
    return y


@fuse
def _outcome(i, f, o, g, cell):
    """h, the new memory, and its tanh."""
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
