"""A small run to torture, and what to compare."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

STEPS, BATCH = 40, 10
MARK = os.environ["MINIDRAW_TORTURE"] = str(os.getpid())  # so that every process started from here bears it
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"OPENBLAS_NUM_THREADS": "1"}
CODE = "import sys; from minidraw import cli, runs; runs.SAVE_EVERY = 0.05; sys.exit(cli.main(sys.argv[1:]))"
COMMAND = [sys.executable, "-c", CODE, "train"]  # which saves all the time


def make_images(folder):
    """The path of a file of sixty 6 x 5 images."""
    images = np.zeros((60, 6, 5), np.uint8)
    rng = np.random.default_rng(1)
    for image, y, x in zip(images, rng.integers(0, 4, 60), rng.integers(0, 3, 60), strict=True):
        image[y : y + 3, x : x + 3] = 255
    path = Path(folder) / "images.npy"
    np.save(path, images)
    return path


def train(images, folder, steps=STEPS, workers=1):
    """The command that trains a new run."""
    numbers = ["--steps", str(steps), "--batch-size", str(BATCH), "--workers", str(workers)]
    return [*COMMAND, "--data", str(images), "--out", str(folder), *numbers]


def resume(folder):
    return [*COMMAND, "--resume", str(folder)]


def call(command, **options):
    """(status, standard output, standard error) of a command."""
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600, **options)
    return done.returncode, done.stdout, done.stderr


def state(folder):
    """Every array of a run's checkpoint to the bit, and its metrics without the bounds on validation images."""
    with np.load(Path(folder) / "checkpoint.npz") as arrays:
        bits = {name: arrays[name].tobytes() for name in arrays.files}
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return bits, [json.loads(line) for line in lines]


def left_behind(folder):
    """The partial files in a run's folder."""
    return [path.name for path in Path(folder).glob("*.partial")]


def children():
    """The worker processes that ours left alive (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"MINIDRAW_TORTURE={MARK}\0".encode() in (path / "environ").read_bytes()
            if ours and b"minidraw.workers" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found
