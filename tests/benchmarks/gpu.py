"""A training step on a GPU: its operations launched one by one, and recorded once and replayed.

    python tests/benchmarks/gpu.py [--rounds N]

For each preset, with all of its glimpses: the median milliseconds of a whole step both ways, from a batch that is ready
to Adam's update, in turn; how many operations the recording holds; and the memory that it keeps.
"""

import argparse
import ctypes
import time
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from minidraw.backend import library, wait_for
from minidraw.cuda_graph import CudaGraph
from minidraw.draw import Draw
from minidraw.images import mnist
from minidraw.presets import PRESETS
from minidraw.training import Trainer
from minidraw.workers import InProcess

WARM_UP = 3


def cases():
    """The name of each row, and what it times: a Config and a Recipe."""
    for name, (config, recipe) in PRESETS.items():
        yield name, config, replace(recipe, growth=())
        if name == "blog":
            yield "blog --no-attention", replace(config, read_N=None, write_N=None), replace(recipe, growth=())


def trainer_with(kind, config, recipe, xp, images):
    """A Trainer whose steps an executor of that `kind` does, and a batch for it."""
    trainer = Trainer(Draw.initial(config, recipe.seed, xp=xp), images, recipe)
    trainer._executor = kind(trainer.model, trainer.adam, recipe)
    return trainer, trainer.batch(1)


def step_times(works, xp, rounds):
    """The milliseconds of each of `works`, called in turn: (rounds, works)."""
    times = np.empty((rounds, len(works)))
    for row in times:
        for k, work in enumerate(works):
            wait_for(xp)
            start = time.perf_counter()
            work()
            wait_for(xp)
            row[k] = (time.perf_counter() - start) * 1e3
    return times


def operations(graph):
    """The number of kernels, copies and fills that a graph of CuPy holds; None where the driver does not tell."""
    try:
        nodes = ctypes.c_size_t()
        status = ctypes.CDLL("libcuda.so.1").cuGraphGetNodes(ctypes.c_void_p(graph.graph), None, ctypes.byref(nodes))
        return nodes.value if status == 0 else None
    except (OSError, AttributeError):
        return None


def card(xp):
    """The name of the GPU and the versions of what drives it."""
    name = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)["name"].decode()
    return f"{name}, CuPy {xp.__version__}, CUDA {xp.cuda.runtime.runtimeGetVersion()}, NumPy {version('numpy')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds, xp, images = parser.parse_args().rounds, library("gpu"), mnist()
    print(card(xp))
    print(f"{'preset':22}{'one by one':>14}{'recorded':>12}{'ratio':>8}{'operations':>13}{'MiB':>8}")
    for name, config, recipe in cases():
        pairs = [trainer_with(kind, config, recipe, xp, images) for kind in (InProcess, CudaGraph)]
        works = [lambda trainer=trainer, batch=batch: trainer.train_step(*batch) for trainer, batch in pairs]
        step_times(works, xp, WARM_UP)
        one_by_one, recorded = np.median(step_times(works, xp, rounds), axis=0)
        recording = pairs[1][0].executor.recording
        held = ("-", "-") if recording is None else (operations(recording.graph), recording.pool.total_bytes() >> 20)
        ratio = one_by_one / recorded
        print(f"{name:22}{one_by_one:11.2f} ms{recorded:9.2f} ms{ratio:8.1f}{held[0]!s:>13}{held[1]!s:>8}", flush=True)


if __name__ == "__main__":
    main()
