import os

import numpy as np
import pytest

os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def small_images(tmp_path_factory):
    """A file of sixty 6 x 5 grey images: bright squares at random places."""
    rng = np.random.default_rng(1)
    images = np.zeros((60, 6, 5), np.uint8)
    for image, y, x in zip(images, rng.integers(0, 4, 60), rng.integers(0, 3, 60), strict=True):
        image[y : y + 3, x : x + 3] = 200
    path = tmp_path_factory.mktemp("data") / "squares.npy"
    np.save(path, images)
    return path
