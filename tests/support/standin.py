"""A stand-in for CuPy: arrays that behave like a GPU's, on a CPU, so that tests see what would go wrong on one.

They refuse to be mixed with NumPy's arrays and scalars, and to be looked at (float, bool, conversion) but by `get`.
Uploads and downloads are counted. The class is no subclass of ndarray: NumPy would accept one in many places.

A stream records as CUDA does: what is asked for is noted and not done, its results are NaN until the graph is launched,
and what CuPy refuses to record is refused.
"""

import contextlib
import ctypes
import sys
import types

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

traffic = {"uploads": 0, "downloads": 0}
recorded = None  # while a stream records: the functions to be called when its graph is launched
UNRECORDABLE = [np.matmul, np.matmul.__call__, np.dot, np.vdot, np.tensordot, np.einsum]


class HostDeviceMix(Exception):
    """A host array met a device array, or the program waited for the device."""


class NotRecordable(Exception):
    """What CuPy cannot do while a stream records."""


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
    if recorded is not None:
        _check_recordable(function, *args)
    args, kwargs = _inner(args), {name: _inner(value) for name, value in kwargs.items()}
    if out is not None:
        target = out[0] if isinstance(out, tuple) else out
        do(lambda: function(*args, out=_inner(target), **kwargs))
        return target
    result = function(*args, **kwargs)
    device = _outer(result)
    if recorded is not None:
        _record(lambda: function(*args, **kwargs), device, args)
    return device


def do(work):
    """Call `work`, which writes into arrays; or note it, while a stream records."""
    work() if recorded is None else recorded.append(work)


def _check_recordable(function, *args):
    joins = function in (np.concatenate, np.stack, np.vstack, np.hstack)
    if function in UNRECORDABLE or joins and len(args[0]) > 8:
        raise NotRecordable(function.__name__)


def _record(work, results, args):
    """Note `work`, which makes the arrays `results`, and spoil them; but for views of what is in `args`."""
    results, listed = results if isinstance(results, tuple | list) else [results], isinstance(results, tuple | list)
    places = [result._host for result in results]
    sources = [
        a for arg in args for a in (arg if isinstance(arg, tuple | list) else [arg]) if isinstance(a, np.ndarray)
    ]
    if any(np.may_share_memory(place, source) for place in places for source in sources):
        return

    def again():
        for place, value in zip(places, work() if listed else [work()], strict=True):
            place[...] = value

    recorded.append(again)
    for place in places:
        place.fill(np.nan if place.dtype.kind == "f" else 0)


class Array(NDArrayOperatorsMixin):
    def __init__(self, host):
        self._host = host

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return _call(getattr(ufunc, method), *inputs, **kwargs)

    def __getitem__(self, index):
        return _outer(self._host[_inner(index)])

    def __setitem__(self, index, value):
        index, value = _inner(index), _inner(value)
        do(lambda: self._host.__setitem__(index, value))

    def __len__(self):
        return len(self._host)

    def get(self):
        if recorded is not None:
            raise NotRecordable("a download")
        traffic["downloads"] += 1
        return self._host.copy()

    def _refuse(self, *_, **__):
        raise HostDeviceMix("the program looks at a device array, and so waits for the device")

    __array__ = __float__ = __int__ = __bool__ = __index__ = __array_function__ = item = tolist = _refuse

    shape, dtype, ndim, size, strides, itemsize = (
        property(lambda self, n=n: getattr(self._host, n)) for n in "shape dtype ndim size strides itemsize".split()
    )
    data = property(lambda self: types.SimpleNamespace(ptr=self._host.ctypes.data))
    T, real, imag = (property(lambda self, n=n: _outer(getattr(self._host, n))) for n in ("T", "real", "imag"))


def _method(name):
    def method(self, *args, **kwargs):
        return _call(getattr(np.ndarray, name), self, *args, **kwargs)

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
        if recorded is not None:
            raise NotRecordable("an upload")
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


class Graph:
    def __init__(self, works):
        self._works = works

    def launch(self):
        for work in self._works:
            work()


class Stream:
    ptr = 1

    def __init__(self, non_blocking):
        assert non_blocking

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def begin_capture(self):
        global recorded
        recorded = []

    def end_capture(self):
        global recorded
        graph, recorded = Graph(recorded), None
        return graph


class Device:
    def synchronize(self):
        if recorded is not None:
            raise NotRecordable("waiting for the device")


class Cublas:
    """The part of cuBLAS that the library knows, by its documentation: C = alpha op(A) op(B) + beta C.

    All three lie column by column, each so many numbers after the one before, A and B perhaps as their transposes.
    """

    def cublasCreate_v2(self, handle):
        handle._obj.value = 7
        return 0

    def cublasDestroy_v2(self, handle):
        return 0

    def cublasSetStream_v2(self, handle, stream):
        return 0 if (handle.value, stream.value) == (7, Stream.ptr) else 1

    def cublasSetWorkspace_v2(self, handle, workspace, size):
        return 0 if workspace.value and size.value else 1

    def cublasSgemm_v2(self, handle, op_A, op_B, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc):
        alone = ctypes.c_longlong(0)
        places = A, lda, alone, B, ldb, alone, beta, C, ldc, alone
        return self.cublasSgemmStridedBatched(handle, op_A, op_B, m, n, k, alpha, *places, 1)

    def cublasSgemmStridedBatched(
        self, handle, op_A, op_B, m, n, k, alpha, A, lda, step_A, B, ldb, step_B, beta, C, ldc, step_C, count
    ):
        (rows_A, columns_A), (rows_B, columns_B) = ((m, k), (k, m))[op_A], ((k, n), (n, k))[op_B]
        if lda < rows_A or ldb < rows_B or ldc < m or handle.value != 7:
            return 7  # CUBLAS_STATUS_INVALID_VALUE
        A = _by_columns(A, count, rows_A, columns_A, lda, step_A)
        B = _by_columns(B, count, rows_B, columns_B, ldb, step_B)
        C = _by_columns(C, count, m, n, ldc, step_C)
        alpha, beta = alpha._obj.value, beta._obj.value
        A, B = (X.swapaxes(1, 2) if transposed else X for X, transposed in ((A, op_A), (B, op_B)))
        do(lambda: C.__setitem__(..., alpha * (A @ B) + (beta * C if beta else 0)))
        return 0


def _by_columns(address, count, rows, columns, leading, step):
    """`count` matrices (rows, columns) at an address: float32, as a view (count, rows, columns) of that memory."""
    length = (count - 1) * step.value + (columns - 1) * leading + rows
    memory = np.ctypeslib.as_array((ctypes.c_float * length).from_address(address.value))
    strides = 4 * step.value, 4, 4 * leading
    return np.lib.stride_tricks.as_strided(memory, (count, rows, columns), strides)


Module.random = Random
Module.ndarray = Array
Module.cuda = types.SimpleNamespace(
    Stream=Stream,
    Device=Device,
    MemoryPool=lambda: types.SimpleNamespace(malloc=None),
    using_allocator=contextlib.nullcontext,
)
Array.__module__ = Fusible.__module__ = "standin_device"
library = sys.modules["standin_device"] = Module("standin_device")
library.float32 = np.float32
