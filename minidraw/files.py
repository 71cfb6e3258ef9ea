"""Files: read without trust, written whole or not at all."""

import contextlib
import gzip
import math
import os
import secrets
import stat
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

from minidraw.errors import BadInput

LARGEST = 2**32  # bytes that a file may promise to hold once it is unpacked
DENSEST = 1100  # bytes that deflate can make of one, at the very most (1032), and some for small files


@contextlib.contextmanager
def open_file(path):
    """Open a file for reading bytes, as a context. Raises BadInput for what is missing, or is no regular file."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # asked first: opening a FIFO would wait for ever
        file = open(path, "rb") if regular else None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise BadInput(f"{path!r}: no path to a file") from None
    if file is None:
        raise BadInput(f"{path}: not a file that could be read: a folder, or a device")
    with file:
        yield file


def write_atomically(path, write):
    """Call `write(file)` on a new file beside `path`, then rename it to `path`: all or nothing, even after kill -9.

    Each call has a file of its own, NAME.*.partial, so that two processes do not write into one.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:  # x: never one that is there, nor through a symbolic link
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def remove_partial_files(folder):
    """Remove what a process that was killed left behind while it wrote a file in `folder`."""
    for partial in Path(folder).glob("*.partial"):
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def locked(path):
    """A context that one process at a time is in; the lock at `path` dies with its process, however that ends.

    Raises BadInput where another process is in it.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with open(number, "rb+") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BadInput(f"{Path(path).parent} is in use: another process is training this run") from None
        yield


def read_arrays(path, what):
    """The arrays of an .npz file by name, or {"": the array} of an .npy file; never unpickles.

    Raises BadInput, "PATH: not `what`, or damaged", for all that is not such a file; before anything is unpacked for
    one whose headers promise more than LARGEST bytes, or more than the file can hold.
    """
    with open_file(path) as file:
        try:
            if file.read(4) == b"PK\x03\x04":
                return _read_npz(file)
            file.seek(0)
            return {"": _read_npy(file, os.fstat(file.fileno()).st_size)}
        except OSError as error:
            if error.strerror is not None:
                raise BadInput(f"{path}: {error.strerror}") from None
            raise BadInput(f"{path}: not {what}, or damaged") from None
        except Exception:  # dozens of kinds: a zip file's, a header's, a recursion's, a size no memory can hold
            raise BadInput(f"{path}: not {what}, or damaged") from None


def _read_npz(file):
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > LARGEST:
            raise ValueError("promises too much")
        arrays = {}
        for member in members:
            if member.file_size > DENSEST * member.compress_size:
                raise ValueError("promises more than it holds")
            with archive.open(member) as content:
                arrays[member.filename.removesuffix(".npy")] = _read_npy(content, member.file_size)
            if len(arrays) > 10_000:
                raise ValueError("too many arrays")
        return arrays


def _read_npy(content, size):
    """The array in a stream of `size` bytes, after its header was found to promise just so many."""
    version = npy.read_magic(content)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, column_major, dtype = read_header(content)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != size - content.tell():
        raise ValueError("not the numbers it promises")
    array = np.frombuffer(content.read(size), dtype)  # all that is left
    return array.reshape(shape[::-1]).T.copy("C") if column_major else array.reshape(shape).copy()


def read_idx(path):
    """The uint8 array of an IDX file, plain or gzipped. Raises BadInput for a missing, damaged or foreign one."""
    with open_file(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        size = os.fstat(file.fileno()).st_size * (DENSEST if packed else 1)
        try:
            return _read_idx(gzip.GzipFile(fileobj=file) if packed else file, size, path)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _read_idx(content, size, path):
    """The array in a stream of at most `size` bytes: no more is read than its header promises."""
    magic = content.read(4)
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08":
        raise BadInput(f"{path}: not an IDX file of bytes; images may be IDX (plain or .gz), .npy or .npz files")
    header = content.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise BadInput(f"{path}: truncated: it ends within its header")
    shape = tuple(int(side) for side in np.frombuffer(header, ">u4"))
    promised = math.prod(shape)
    if not 1 <= len(shape) <= 4 or promised > min(LARGEST, size):
        raise BadInput(f"{path}: truncated or damaged: its header promises {len(shape)} dimensions, {promised} bytes")
    array = np.frombuffer(content.read(promised), np.uint8)
    if len(array) != promised or content.read(1):
        found = f"{len(array)} bytes" if len(array) < promised else "more"
        raise BadInput(f"{path}: truncated or damaged: {found} where {promised} bytes belong")
    return array.reshape(shape)
