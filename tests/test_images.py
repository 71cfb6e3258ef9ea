"""The bundled images and a person's own."""

import gzip
import os
import struct
import zipfile

import numpy as np
import pytest

from minidraw import images as library
from minidraw.errors import BadInput


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_the_bundled_mnist():
    images = library.mnist()
    assert [len(s) for s in (images.train, images.validation, images.test)] == [50_000, 10_000, 10_000]
    assert images.train.shape[1] == images.A * images.B == 784 and not images.grey
    assert set(np.unique(images.test)) == {0, 1}
    labels = library.mnist_labels("test")
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # MNIST's own
    assert np.bincount(library.mnist_labels("train")).min() > 4000
    grey, grey_labels = library.grey_digits()
    assert grey.shape == (200, 28, 28) and grey.max() == 255 and grey_labels[:5].tolist() == [5, 0, 4, 1, 9]
    certain = (grey.reshape(200, 784) == 0) | (grey.reshape(200, 784) == 255)
    sampled = images.train[:200]
    assert np.array_equal(sampled[certain], grey.reshape(200, 784)[certain] // 255)
    assert abs(sampled.mean() - grey.mean() / 255) < 0.002


def test_building_from_idx_files(tmp_path, rng):
    """The files MNIST came in, in small: sampled with the grey value as probability, the last 10,000 apart."""
    for split, count in (("train", 10_030), ("test", 2000)):
        images = np.full((count, 28, 28), 51, np.uint8)  # one fifth
        images[:, 0], images[:, 1] = 0, 255
        names = library.IDX_FILES[split]
        (tmp_path / names[0]).write_bytes(idx(images))
        (tmp_path / (names[1] + ".gz")).write_bytes(gzip.compress(idx(rng.integers(0, 10, count).astype(np.uint8))))
    arrays = library.build_mnist(tmp_path)
    assert len(arrays["train"]) == 30 and len(arrays["validation"]) == 10_000 and len(arrays["test"]) == 2000
    bits = np.unpackbits(arrays["test"], axis=1).reshape(-1, 28, 28)
    assert bits[:, 0].max() == 0 and bits[:, 1].min() == 1
    assert bits[:, 2:].mean() == pytest.approx(0.2, abs=0.002)  # 1.5 million pixels
    assert all(np.array_equal(arrays[name], again) for name, again in library.build_mnist(tmp_path).items())


@pytest.mark.skipif("MINIDRAW_MNIST" not in os.environ, reason="MINIDRAW_MNIST names no folder with MNIST's IDX files")
def test_the_bundled_file_is_what_build_makes():
    built = library.build_mnist(os.environ["MINIDRAW_MNIST"])
    with np.load(library.BUNDLED) as bundled:
        assert sorted(built) == sorted(bundled.files)
        assert all(np.array_equal(built[name], bundled[name]) for name in built)


@pytest.mark.parametrize("form", ["idx", "gz", "npy", "npz", "float"])
def test_own_images_in_every_form(tmp_path, rng, form):
    images = rng.integers(0, 256, (40, 4, 3)).astype(np.uint8)
    path = tmp_path / {"idx": "images", "gz": "images.gz", "npz": "images.npz"}.get(form, "images.npy")
    if form == "idx":
        path.write_bytes(idx(images))
    elif form == "gz":
        path.write_bytes(gzip.compress(idx(images)))
    elif form == "npz":
        np.savez(path, images=images)
    else:
        np.save(path, images if form == "npy" else images / 255)
    own = library.load_images(path)
    assert (own.B, own.A, own.channels, own.grey) == (4, 3, 1, True)
    assert len(own.train) == 36 and len(own.test) == 4 and own.test is own.validation
    np.testing.assert_allclose(own.train, images[:36].reshape(36, 12) / 255, rtol=1e-6)
    assert set(np.unique(own.test)) == {0, 1}
    np.testing.assert_allclose(
        library.load_images(path, binary=False).test, images[36:].reshape(4, 12) / 255, rtol=1e-6
    )


def test_colour_channels_lie_one_after_another(tmp_path, rng):
    images = rng.random((10, 4, 3, 3))
    np.save(tmp_path / "colour.npy", images)
    own = library.load_images(tmp_path / "colour.npy", binary=False)
    assert own.channels == 3
    np.testing.assert_allclose(own.train[5].reshape(3, 4, 3)[2], images[5, :, :, 2], rtol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.uint8, float])
def test_zeros_and_ones_are_taken_as_they_are(tmp_path, rng, dtype):
    images = rng.integers(0, 2, (20, 4, 3)).astype(dtype)
    np.save(tmp_path / "binary.npy", images)
    own = library.load_images(tmp_path / "binary.npy")
    assert not own.grey
    np.testing.assert_array_equal(own.train, images[:18].reshape(18, 12))


def test_binarising_samples_with_the_grey_value_as_probability(rng):
    grey = np.tile(np.array([0, 0.25, 1], "f"), (20_000, 1))
    np.testing.assert_allclose(library.binarise(grey, rng).mean(axis=0), [0, 0.25, 1], atol=0.01)


def bad_files(folder, rng):
    """name -> (path, what the message says)."""
    images = rng.integers(0, 256, (20, 4, 3)).astype(np.uint8)
    whole = idx(images)
    contents = {
        "missing": (None, "No such file"),
        "truncated": (whole[:-7], "truncated or damaged: 233 bytes where 240 bytes belong"),
        "header only": (whole[:6], "ends within its header"),
        "foreign": (b"PNG, or so it says", "not an IDX file"),
        "empty": (b"", "not an IDX file"),
        "cut.gz": (gzip.compress(whole)[:-20], "cannot be read"),
        "foreign.npy": (b"no array", "not a file of images as NumPy saves them, or damaged"),
        "foreign.npz": (b"no archive", "not a file of images as NumPy saves them, or damaged"),
    }
    for name, (content, message) in contents.items():
        if content is not None:
            (folder / name).write_bytes(content)
        yield name, message
    arrays = {
        "pickled.npy": (np.array([{"a": 1}], dtype=object), "not a file of images as NumPy saves them, or damaged"),
        "flat.npy": (images.reshape(20, 12), r"shape \(20, 12\)"),
        "four.npy": (np.zeros((20, 4, 3, 4)), "shape"),
        "vast.npy": (None, "not a file of images"),
        "few.npy": (images[:5], "at least ten images"),
        "above.npy": (images / 200, "floats must lie in"),
        "nan.npy": (np.where(images > 9, np.nan, 0.5), "holds NaN"),
        "int64.npy": (images.astype(np.int64), "numbers of type int64"),
    }
    for name, (array, message) in arrays.items():
        if array is None:  # a header that promises more than any memory holds
            header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000, 100), }"
            header = header.ljust(117) + "\n"
            (folder / name).write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        else:
            np.save(folder / name, array, allow_pickle=True)
        yield name, message
    np.savez(folder / "two.npz", a=images, b=images)
    yield "two.npz", "holds 2 arrays"
    with zipfile.ZipFile(folder / "text.npz", "w") as archive:
        archive.writestr("hello.txt", "no array")
    yield "text.npz", "not a file of images"


def test_bad_files_get_one_clear_line(tmp_path, rng):
    for name, message in bad_files(tmp_path, rng):
        with pytest.raises(BadInput, match=message) as caught:
            library.load_images(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
