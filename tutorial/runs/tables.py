"""Measures a trained run for chapter 18: `python tutorial/runs/tables.py RUN NAME`, say `runs/paper-1 paper`.

NAME.json has the bound on test images and on some that it was trained with, the importance-weighted estimate of a few,
the bound with other numbers of glimpses than it was trained with, and the curve of the training; NAME-bounds.npy the
bound of every test image.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))  # where scenes.py is

import numpy as np
from make import HERE
from scenes import attempt
from tqdm import tqdm

from minidraw import bench
from minidraw.backend import library
from minidraw.checkpoint import load_run
from minidraw.draw import Draw
from minidraw.errors import BadInput
from minidraw.evaluation import evaluate, nats_of_each, summary
from minidraw.files import write_atomically
from minidraw.images import mnist

KNOWN = 4000  # images of the training set
SAMPLES, WEIGHTED = 50, 100  # drawings of each image for the importance-weighted estimate, and of how many images
GLIMPSES, SOME = (8, 16, 32, 48, 64, 96, 128), 250  # numbers of glimpses to try, on how many validation images
EVERY = 10  # steps that one row of the curve sums up


def curve(path):
    """What `minidraw train` wrote to metrics.jsonl, as columns: L_x and L_z, means of EVERY steps; and validation.

    Steps that the file lacks leave their row out.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = {line["step"]: (line["L_x"], line["L_z"]) for line in lines if "L_x" in line}  # the last, if it went back
    ends = [end for end in range(EVERY, max(steps) + 1, EVERY) if all(end - k in steps for k in range(EVERY))]
    found = np.array([[steps[end - k] for k in range(EVERY)] for end in ends]).mean(axis=1)
    validation = {line["step"]: round(line["validation"], 2) for line in lines if "validation" in line}
    L_x, L_z = found.T.round(2).tolist()
    return {
        "step": ends,
        "L_x": L_x,
        "L_z": L_z,
        "validation": {"step": list(validation), "bound": list(validation.values())},
    }


def measure(run, name, device="cpu", folder=HERE, images=None):
    """Write the two files about `run`, the folder of a run on the bundled digits; `images` are others, for a test."""
    if not Path(run).is_dir():
        raise BadInput(f"{run}: no such folder; `minidraw train` makes one")
    images, found = images or mnist(), load_run(run, library(device))
    if found.step < EVERY:
        raise BadInput(f"{run}: has {found.step} steps, and a row of its curve takes {EVERY}")
    model, trained = found.model, curve(Path(run) / "metrics.jsonl")  # first what may be missing, then what takes long
    nats = {"test": images.test, "train": images.train[:KNOWN]}
    nats = {split: nats_of_each(model, x, progress=tqdm) for split, x in nats.items()}
    weighted = evaluate(model, images.test[:WEIGHTED], SAMPLES, progress=tqdm)
    others = {T: Draw(replace(model.config, T=T), model.arrays()) for T in GLIMPSES}  # all steps share their weights
    tried = {T: evaluate(other, images.validation[:SOME], progress=tqdm) for T, other in others.items()}
    result = {
        "command": f"python tutorial/runs/tables.py {run} {name}" + " --device gpu" * (device == "gpu"),
        "machine": bench.machine(),
        "device": device,
        "trained": {"steps": found.step, "recipe": asdict(found.recipe), "config": asdict(model.config)},
        "bounds": {split: summary(*each)._asdict() for split, each in nats.items()},
        "importance_weighted": {
            "images": weighted.images,
            "samples": weighted.samples,
            "bound": weighted.bound,
            "nats": weighted.importance_weighted,
            "standard_error": weighted.importance_weighted_standard_error,
        },
        "glimpses": {"T": list(tried), "L_x": [e.L_x for e in tried.values()], "L_z": [e.L_z for e in tried.values()]},
        "curve": trained,
    }
    L_x, L_z, _ = nats["test"]
    bounds = (L_x[0] + L_z[0].sum(axis=0)).astype(np.float32)
    write_atomically(folder / f"{name}-bounds.npy", lambda file: np.save(file, bounds))
    write_atomically(folder / f"{name}.json", lambda file: file.write(f"{json.dumps(result)}\n".encode()))
    test = result["bounds"]["test"]
    print(f"{name}: {test['bound']:.2f} +- {test['standard_error']:.2f} nats; importance-weighted", end=" ")
    print(f"{weighted.importance_weighted:.2f} +- {weighted.importance_weighted_standard_error:.2f}")


def main(argv=None):
    """Measure one run; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="a folder that `minidraw train` made")
    parser.add_argument("name", metavar="NAME", help="of the files that are written beside this one")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy (default: cpu)")
    args = parser.parse_args(argv)
    return attempt("tables.py", measure, args.run, args.name, args.device)


if __name__ == "__main__":
    sys.exit(main())
