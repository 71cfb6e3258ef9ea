"""A stand-in for CuPy: arrays that behave like a GPU's, on a CPU, so that tests see what would go wrong on one.

They refuse to be mixed with NumPy's arrays and scalars, and to be looked at (float, bool, conversion) but by `get`.
Uploads and downloads are counted. The class is no subclass of ndarray: NumPy would accept one in many places.
"""

import sys
import types

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

traffic = {"uploads": 0, "downloads": 0}


class HostDeviceMix(Exception):
    """A host array met a device array, or the program waited for the device."""


def _inner(value):
    """The ndarray inside a device array; Python's numbers and the like as they are. Host arrays are refused."""
    if isinstance(value, Array):
        return value._host
    if isinstance(value, np.ndarray | np.generic):
        raise HostDeviceMix(f"a host {type(value).__name__} among device arrays")
    if isinstance(value, list | tuple):
        return type(value)(_inner(v) for v in value)
    return float(value) if isinstance(value, Number) else value


def _outer(value):
    """Device arrays in place of ndarrays; 0-d ones, too: a sum stays on the device."""
    if isinstance(value, tuple | list):
        return type(value)(_outer(v) for v in value)
    return Array(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def _call(function, *args, out=None, **kwargs):
    if out is not None:
        target = out[0] if isinstance(out, tuple) else out
        function(*_inner(args), out=_inner(target), **_kwargs(kwargs))
        return target
    return _outer(function(*_inner(args), **_kwargs(kwargs)))


def _kwargs(kwargs):
    return {name: _inner(value) for name, value in kwargs.items()}


class Array(NDArrayOperatorsMixin):
    def __init__(self, host):
        self._host = host

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return _call(getattr(ufunc, method), *inputs, **kwargs)

    def __getitem__(self, index):
        return _outer(self._host[_inner(index)])

    def __setitem__(self, index, value):
        self._host[_inner(index)] = _inner(value)

    def __len__(self):
        return len(self._host)

    def get(self):
        traffic["downloads"] += 1
        return self._host.copy()

    def _refuse(self, *_, **__):
        raise HostDeviceMix("the program looks at a device array, and so waits for the device")

    __array__ = __float__ = __int__ = __bool__ = __index__ = __array_function__ = item = tolist = _refuse

    shape, dtype, ndim, size = (
        property(lambda self, n=n: getattr(self._host, n)) for n in "shape dtype ndim size".split()
    )
    T, real, imag = (property(lambda self, n=n: _outer(getattr(self._host, n))) for n in ("T", "real", "imag"))


def _method(name):
    def method(self, *args, **kwargs):
        return _call(getattr(self._host, name), *args, **kwargs)

    return method


for _name in ("sum", "mean", "min", "max", "reshape", "ravel", "swapaxes", "astype", "copy"):
    setattr(Array, _name, _method(_name))


class Module(types.ModuleType):
    """The library the arrays belong to: NumPy's functions, between device arrays; `asarray` uploads."""

    def __getattr__(self, name):
        function = getattr(np, name)
        return (lambda *args, **kwargs: _call(function, *args, **kwargs)) if callable(function) else function

    @staticmethod
    def asarray(value, dtype=None):
        if isinstance(value, Array):
            return Array(np.asarray(value._host, dtype))
        traffic["uploads"] += 1
        return Array(np.array(value, dtype))

    @staticmethod
    def fuse(function):
        """As cupy.fuse: the function sees its arrays as Fusible ones, and what it returns must have one shape."""

        def fused(*args):
            result = function(*(Fusible(a._host) if isinstance(a, Array) else Number(a) for a in args))
            results = result if isinstance(result, tuple) else (result,)
            if len({r.shape for r in map(_inner, results) if r is not None}) > 1:
                raise TypeError(f"{function.__name__}: a kernel returns arrays of one shape")
            return _unfused(result)

        return fused


class Fusible(Array):
    """An array within a kernel: operators and functions element by element, and nothing else."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__":
            raise TypeError(f"{ufunc.__name__}.{method} within a kernel")
        return _fused(Array.__array_ufunc__(self, ufunc, method, *inputs, **kwargs))

    def _refuse(self, *_):
        raise TypeError("a kernel works element by element: no slices, shapes, sums, and the like")

    __getitem__ = __setitem__ = __len__ = get = sum = mean = reshape = ravel = swapaxes = astype = copy = _refuse
    shape = size = T = real = imag = property(_refuse)


class Number(float):
    """A number within a kernel, to be met by arrays: of two numbers CuPy would make a float16."""

    def _meet(self, other):
        if isinstance(other, int | float):
            raise TypeError("two numbers meet within a kernel")
        return NotImplemented

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _meet


def _fused(value):
    return tuple(map(_fused, value)) if isinstance(value, tuple) else Fusible(value._host)


def _unfused(value):
    if value is None:
        return None
    return tuple(map(_unfused, value)) if isinstance(value, tuple) else Array(value._host)


class Random:
    """The part of cupy.random that the library knows."""

    Philox4x3210 = staticmethod(lambda seed, size: np.random.Philox(seed))

    class Generator:
        def __init__(self, bits):
            self._host = np.random.Generator(bits)

        def standard_normal(self, size, dtype):
            return Array(self._host.standard_normal(size, dtype))


Module.random = Random
Array.__module__ = Fusible.__module__ = "standin_device"
library = sys.modules["standin_device"] = Module("standin_device")
library.float32 = np.float32
