"""Which library an array belongs to: NumPy on the CPU, CuPy on a GPU.

The only file that names cupy. Everything else asks `array_module` and writes
`xp.exp(a)`, so the same line runs on both.
"""

import sys

import numpy as np

from minidraw.errors import BadInput


def array_module(array):
    """The library `array` belongs to: `numpy`, or `cupy` for an array on a GPU."""
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    return sys.modules[type(array).__module__.partition(".")[0]]


def library(device):
    """The array library for `device`, "cpu" or "gpu".

    Raises BadInput when a GPU is asked for and CuPy, its driver or the card is missing.
    """
    if device == "cpu":
        return np
    if device != "gpu":
        raise BadInput(f"device {device!r} is unknown: choose cpu or gpu")
    try:
        import cupy
    except ImportError:
        raise BadInput("a GPU needs CuPy: install minidraw[cuda12] or minidraw[cuda13], or use --device cpu") from None
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BadInput(f"no usable GPU here ({error}): use --device cpu") from None
    return cupy


def wait_for(xp):
    """Return once everything asked of the library `xp` is done: a GPU works behind the program's back."""
    if xp is not np:
        xp.cuda.Device().synchronize()


def to_host(array):
    """`array` as a NumPy array, copied from the GPU where it lies there."""
    return array if isinstance(array, np.ndarray) else array.get()
