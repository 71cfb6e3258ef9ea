"""Which library an array belongs to: NumPy on the CPU, CuPy on a GPU.

The only file that names cupy. Everything else asks `array_module` and writes
`xp.exp(a)`, so the same line runs on both.
"""

import functools
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
        raise BadInput(f"device {device!r} is unknown: choose cpu or gpu", "device")
    try:
        import cupy
    except ImportError:
        raise BadInput("a GPU needs CuPy: install the extra cuda12 or cuda13, or use the cpu", "device") from None
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BadInput(f"no usable GPU here ({error}): use the cpu", "device") from None
    return cupy


def fuse(function):
    """`function` of arrays: on a GPU as a single kernel, on NumPy as it is.

    It works element by element, on arrays that broadcast: operators, also in place, and
    functions such as xp.exp, with the array to write to as their last argument. No
    slices, sums or shapes; all that it returns has one shape; its first argument is an
    array, others may be numbers; these meet arrays only (of two, CuPy would make a
    float16). Chapter 15.
    """
    kernel = functools.cache(lambda xp: xp.fuse(function))

    @functools.wraps(function)
    def fused(*arrays):
        xp = array_module(arrays[0])
        return function(*arrays) if xp is np else kernel(xp)(*arrays)

    return fused


def standard_normal(xp, rng, shape):
    """Draws from N(0, 1), float32: by `rng`, a NumPy generator; on a GPU by one of its own, with the seed of `rng`."""
    if xp is np:
        return rng.standard_normal(shape, np.float32)
    bits = xp.random.Philox4x3210(rng.bit_generator.seed_seq, size=2**16)  # a size that does not depend on the card
    return xp.random.Generator(bits).standard_normal(shape, np.float32)


def wait_for(xp):
    """Return once everything asked of the library `xp` is done: a GPU works behind the program's back."""
    if xp is not np:
        xp.cuda.Device().synchronize()


def to_host(array):
    """`array` as a NumPy array, copied from the GPU where it lies there."""
    return array if isinstance(array, np.ndarray) else array.get()
