"""Images: the bundled binarised MNIST, how it was made from the original files, and a person's own images.

MNIST: Y. LeCun, C. Cortes, C. J. C. Burges, http://yann.lecun.com/exdb/mnist/, CC BY-SA 3.0.
"""

import os
import zlib
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from minidraw.errors import BadInput
from minidraw.files import read_arrays, read_idx

BUNDLED = files("minidraw") / "bundled" / "mnist.npz"
BINARISATION_SEED = 0
GREY_DIGITS = 200
IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class Images:
    """Three splits of images, each (count, channels * B * A): uint8 zeros and ones, or float32 greys in [0, 1]."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    A: int  # width in pixels
    B: int  # height in pixels
    channels: int = 1

    @property
    def shape(self):
        """Height, width and channels of an image, like Config.image_shape."""
        return self.B, self.A, self.channels

    @property
    def grey(self):
        return self.train.dtype != np.uint8

    @property
    def checksum(self):
        """A CRC-32 of all pixels: tells a resumed run that it sees the images it started with."""
        return zlib.crc32(self.test, zlib.crc32(self.validation, zlib.crc32(self.train)))


def binarise(grey, rng):
    """Sample each pixel as 1 with its grey value in [0, 1] as probability: same shape and dtype."""
    return (rng.random(grey.shape, dtype=np.float32) < grey).astype(grey.dtype)


def mnist():
    """The bundled MNIST, binarised once: Images of 50,000 / 10,000 / 10,000."""
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        splits = (np.unpackbits(arrays[split], axis=1) for split in ("train", "validation", "test"))
        return Images(*splits, A=28, B=28)


def mnist_labels(split):
    """The digit of each image of `split` ("train", "validation" or "test"), uint8."""
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        return arrays[f"{split}_labels"]


def grey_digits():
    """Two hundred grey training digits for illustrations, (200, 28, 28) uint8, and their labels."""
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        return arrays["grey"], arrays["grey_labels"]


def build_mnist(folder):
    """The arrays of the bundled file from the four original IDX files in `folder`, plain or .gz.

    A pixel of grey value v is 1 where a raw 64-bit draw of PCG64 modulo 255 lies below v:
    probability v / 255, in integers, from a stream that NumPy promises never to change.
    """
    arrays = {}
    if not os.path.isdir(folder):
        raise BadInput(f"{folder}: no such folder")
    for split, names in IDX_FILES.items():
        for kind, name in zip(("images", "labels"), names, strict=True):
            path = os.path.join(folder, name)
            arrays[split, kind] = read_idx(path if os.path.exists(path) else path + ".gz")
        images, labels = arrays[split, "images"], arrays[split, "labels"]
        if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise BadInput(f"{folder}: these are not MNIST's files: {images.shape} images and {labels.shape} labels")
    generator = np.random.PCG64(BINARISATION_SEED)

    def bits(images):  # in parts, for the raw draws take 8 bytes a pixel
        packed = []
        for part in np.array_split(images.reshape(len(images), 784), max(1, len(images) // 1000)):
            draws = generator.random_raw(part.size).reshape(part.shape)
            packed.append(np.packbits(draws % 255 < part, axis=1))
        return np.concatenate(packed)

    train, test = bits(arrays["train", "images"]), bits(arrays["test", "images"])
    labels = arrays["train", "labels"]
    split = len(train) - 10_000
    return {
        "train": train[:split],
        "train_labels": labels[:split],
        "validation": train[split:],
        "validation_labels": labels[split:],
        "test": test,
        "test_labels": arrays["test", "labels"],
        "grey": arrays["train", "images"][:GREY_DIGITS],
        "grey_labels": labels[:GREY_DIGITS],
    }


def load_images(path, binary=True):
    """A person's own images, as Images: the last tenth is held out, as validation and test at once.

    `path` is an IDX file (plain or .gz), or an .npy or .npz file with one array, (count, height,
    width) or (count, height, width, 3). uint8 is divided by 255, unless
    it is all zeros and ones; floats must lie in [0, 1]. Grey
    training images stay grey, to be binarised afresh at each use; the held-out ones are binarised
    once. With `binary=False` both are taken as they are. Raises BadInput.
    """
    if str(path).lower().endswith((".npy", ".npz")):
        arrays = read_arrays(path, "a file of images as NumPy saves them")
        if len(arrays) != 1:
            raise BadInput(f"{path}: holds {len(arrays)} arrays ({', '.join(arrays)}): one is wanted")
        (images,) = arrays.values()
    else:
        images = read_idx(path)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise BadInput(f"{path}: shape {images.shape}: it must be (count, height, width) or (count, height, width, 3)")
    if len(images) < 10 or 0 in images.shape:
        raise BadInput(f"{path}: shape {images.shape}: at least ten images of at least one pixel are needed")
    if images.dtype == bool:
        images = images.astype(np.uint8)
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise BadInput(f"{path}: numbers of type {images.dtype}: uint8 (0 to 255) or floats in [0, 1] are wanted")
    if images.dtype == np.uint8:
        images = images.astype(np.float32)
        if images.max() > 1:  # else they are zeros and ones already
            images /= 255
    elif np.isnan(images).any():
        raise BadInput(f"{path}: holds NaN: floats must lie in [0, 1]")
    elif images.min() < 0 or images.max() > 1:
        raise BadInput(f"{path}: values from {images.min():.4g} to {images.max():.4g}: floats must lie in [0, 1]")
    channels = 1 if images.ndim == 3 else 3
    B, A = images.shape[1:3]
    if channels == 3:
        images = images.transpose(0, 3, 1, 2)
    images = np.ascontiguousarray(images, dtype=np.float32).reshape(len(images), -1)
    if ((images == 0) | (images == 1)).all():
        images = images.astype(np.uint8)  # binary already
    split = len(images) - len(images) // 10
    train, held_out = images[:split], images[split:]
    if binary and images.dtype != np.uint8:
        held_out = binarise(held_out, np.random.default_rng(BINARISATION_SEED))
    return Images(train, held_out, held_out, A, B, channels)
