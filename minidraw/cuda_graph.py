"""A training step on a GPU, recorded once and replayed: a CUDA graph. Chapter 15.

A step is thousands of small operations, and each of them Python has to ask CuPy for, and CuPy has to launch: that takes
far longer than the GPU needs to do them. But every step asks for the same ones, on arrays of the same shapes. So they
are asked for once more while CUDA only takes notes of them (it *captures* a graph), and from then on one call launches
all of them. What is recorded is the forward and backward pass and the norm: `InProcess.gradients`, as it stands. The
images and the noise are copied to where the recorded operations look for them; the parameters never move, for Adam
writes into their arrays. Clip, Adam and the next batch come after it, launched one by one.
"""

import contextlib
import ctypes
import warnings
import weakref

import numpy as np

from minidraw.backend import to_host, wait_for
from minidraw.workers import InProcess

WORKSPACE = 2**25  # bytes that cuBLAS may use, what its documentation asks for on a large GPU
MOST = 8  # arrays that CuPy joins without uploading a list of them
AS_IT_IS, TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
NUMBERS = {"f": ("S", ctypes.c_float), "d": ("D", ctypes.c_double)}


class CudaGraph(InProcess):
    """An InProcess on a GPU whose gradients are a Recording, one for each T: a new one when T has grown.

    Where none can be made it warns, and the operations of every step are launched one by one.
    """

    _T = recording = None

    def gradients(self, x, noise):
        """As of InProcess. What it returns, and `last_gradients`, are overwritten by the next call."""
        if self._T != len(noise):
            self._T, self.recording = len(noise), None  # the old one's memory is free before the new one asks for some
            try:
                self.recording = Recording(self._model.xp, super().gradients, x, noise)
            except Exception as error:  # of CUDA, CuPy or ctypes: whatever it was, a step does not depend on it
                reason = f"{type(error).__name__}: {error}"
                warnings.warn(f"training without a CUDA graph, and slower, because of {reason}", stacklevel=2)
        work = self.recording or super().gradients
        return work(x, noise)


class Recording:
    """`function` of arrays on a GPU, recorded: a call with others of the same shapes replays it on them.

    `function` returns a tuple of arrays, and so does the recording, the same ones each time with new numbers in them.
    It must do the same operations whatever the numbers are, look at none of them, and upload nothing that it did not
    upload before. It is called three times: as it is; with the products that can be recorded; and while CUDA records.
    What the recording gives is then compared with what the first call gave.

    `graph` is what was recorded, `pool` its memory: every array that `function` makes lies there, and nothing else
    does, so that nobody else writes to it between two replays.
    """

    def __init__(self, xp, function, *inputs):
        """Raises what CUDA, CuPy or ctypes raise where it cannot be recorded, RuntimeError where the numbers differ."""
        self._inputs = [array.copy() for array in inputs]
        self.pool = xp.cuda.MemoryPool()
        self._stream = xp.cuda.Stream(non_blocking=True)  # for CUDA does not record the one that is used otherwise
        self._products = Products(xp, self._stream)
        wait_for(xp)  # for the inputs, made on that other stream
        with self._stream, xp.cuda.using_allocator(self.pool.malloc):
            expected = function(*self._inputs)  # compiles kernels and uploads constants, too
            with _recordable(xp, self._products.product):
                function(*self._inputs)  # loads those of cuBLAS
                self._record(function)
        wait_for(xp)
        for want, found in zip(map(to_host, expected), map(to_host, self(*inputs)), strict=True):
            if not np.allclose(found, want, rtol=0, atol=1e-3 * np.abs(want).max(), equal_nan=True):
                raise RuntimeError(f"a recording that gives {found}, not {want}")

    def _record(self, function):
        self._stream.begin_capture()
        try:
            self._outputs = function(*self._inputs)
        except BaseException:  # Ctrl-C, too
            with contextlib.suppress(Exception):  # the exception on its way says more
                self._stream.end_capture()
            raise
        self.graph = self._stream.end_capture()

    def __call__(self, *inputs):
        for place, array in zip(self._inputs, inputs, strict=True):
            place[...] = array
        self.graph.launch()  # on the stream of everything else: in turn with what comes before and after
        return self._outputs


@contextlib.contextmanager
def _recordable(xp, product):
    """Inside this context the two operations that CuPy refuses to record are done in another way.

    `a @ b` is `product(a, b)`; and more than eight arrays are joined by eights, for CuPy would upload where they lie.
    """
    concatenate = xp.concatenate

    def by_eights(arrays, axis=0):
        while len(arrays) > MOST:
            arrays = [concatenate(arrays[k : k + MOST], axis=axis) for k in range(0, len(arrays), MOST)]
        return concatenate(arrays, axis=axis)

    xp.ndarray.__matmul__, xp.concatenate = lambda a, b: product(a, b), by_eights
    try:
        yield
    finally:
        del xp.ndarray.__matmul__  # it has that of its base class again
        xp.concatenate = concatenate


def load_cublas(xp):
    """cuBLAS, which CuPy's extension module is linked to, with its functions as attributes."""
    return ctypes.CDLL(xp.cuda.cublas.__file__)


class Products:
    """Matrix products that can be recorded: by cuBLAS itself, called past CuPy, on a stream."""

    def __init__(self, xp, stream):
        """Raises what ctypes raises where cuBLAS is not found, RuntimeError where it refuses to work."""
        self._xp, self._cublas = xp, load_cublas(xp)
        self._workspace = xp.empty(WORKSPACE, np.uint8)  # as its own it would allocate one while it is recorded
        handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(handle))
        weakref.finalize(self, self._cublas.cublasDestroy_v2, handle).atexit = False
        self._handle = handle
        self._call("cublasSetStream_v2", handle, ctypes.c_void_p(stream.ptr))  # before the workspace, which it resets
        workspace = ctypes.c_void_p(self._workspace.data.ptr)
        self._call("cublasSetWorkspace_v2", handle, workspace, ctypes.c_size_t(WORKSPACE))

    def product(self, a, b):
        """a @ b, a new array: two vectors, or matrices or stacks of them that broadcast; both float32 or float64."""
        if a.ndim == b.ndim == 1:
            return (a * b).sum()
        stack, rows, columns = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]
        if a.dtype != b.dtype or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"no product of {a.dtype} {a.shape} and {b.dtype} {b.shape}")
        a, b = (self._xp.broadcast_to(m, stack + m.shape[-2:]) for m in (a, b))
        y = self._xp.empty((*stack, rows, columns), a.dtype)
        for k in np.ndindex(stack[1:]):  # one call does all matrices along one axis: here the images of a batch
            which = (slice(None), *k) if stack else ()
            self._gemm(a[which], b[which], y[which])
        return y

    def _gemm(self, a, b, y):
        """y = a @ b of matrices, or of equally many.

        cuBLAS counts matrices down their columns: what NumPy calls a row-major matrix, it calls the transposed one.
        So y = a b is asked for as y^T = b^T a^T.
        """
        letter, number = NUMBERS[y.dtype.char]
        (flag_a, a, *a_lies), (flag_b, b, *b_lies), (_, _, *y_lies) = map(self._operand, (a, b, y))
        one, zero = ctypes.byref(number(1)), ctypes.byref(number(0))
        sizes = y.shape[-1], y.shape[-2], a.shape[-1]
        name, count = ("gemm_v2", ()) if y.ndim == 2 else ("gemmStridedBatched", (len(y),))
        arguments = self._handle, flag_b, flag_a, *sizes, one, *b_lies, *a_lies, zero, *y_lies, *count
        self._call(f"cublas{letter}{name}", *arguments)

    def _operand(self, matrix):
        """How cuBLAS reads a matrix (or a stack), where it lies if it can: flag, matrix, address, strides."""
        rows, columns = matrix.shape[-2:]
        *between, down, across = (stride // matrix.itemsize for stride in matrix.strides)
        if (across == 1 or columns == 1) and (down >= columns or rows == 1):
            flag, leading = AS_IT_IS, max(down, columns)
        elif (down == 1 or rows == 1) and (across >= rows or columns == 1):
            flag, leading = TRANSPOSED, max(across, rows)
        else:
            return self._operand(self._xp.ascontiguousarray(matrix))
        return flag, matrix, ctypes.c_void_p(matrix.data.ptr), leading, *map(ctypes.c_longlong, between)

    def _call(self, name, *arguments):
        status = getattr(self._cublas, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} of cuBLAS returned status {status}")
