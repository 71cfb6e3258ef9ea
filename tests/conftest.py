import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
os.environ.setdefault("MPLBACKEND", "agg")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The folder of a book, made without a browser where PATH is all that leads to one."""
    folder = tmp_path_factory.mktemp("book")
    environment = {**os.environ, "PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "tutorial" / "chapters.py", "site", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "WARNING" not in said and "ERROR" not in said, said
    return folder
