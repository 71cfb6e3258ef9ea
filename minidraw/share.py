"""The batch shared among processes: each goes forward and backward for its own images, on its own core. Chapter 15.

NumPy spreads only its larger matrix products over the cores, and everything else of a step waits on one of them.
Images do not depend on each other before their gradients are added, so as many processes as there are cores can do
all of a step at once. They share one block of memory, a file that all of them map: it holds the parameters, the
images, the noise, and for every process what it found. A line through a pipe says "begin", another "done".
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from dataclasses import asdict
from pathlib import Path

import numpy as np

from minidraw.autodiff import backward
from minidraw.draw import Config, Draw
from minidraw.errors import BadInput

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "BLIS")}
ONE_THREAD["VECLIB_MAXIMUM_THREADS"] = "1"


def gradients_of(model, x, noise, batch_size):
    """What the images x and their noise contribute to a batch of `batch_size`: (L_x, L_z, gradients).

    Two 0-d arrays in nats and a list of arrays in the parameters' order; summed over the parts of a batch they are its
    mean and the gradients of that mean.
    """
    with np.errstate(all="ignore"):  # what overflows shows in the values: the trainer looks at them
        L_x, L_z = (nats.sum() * (1 / batch_size) for nats in model.nats(x, noise))
        return L_x.value, L_z.value, backward(L_x + L_z, model.parameters.values())


def keep_memory():
    """Tell glibc to keep freed memory for the next step: without this a step of `blog` takes some 3,000 page faults.

    Freeing one block of nearly 32 MiB raises its thresholds for returning memory to the system (see mallopt(3),
    M_MMAP_THRESHOLD); elsewhere this is one allocation that is never touched.
    """
    np.empty(2**25 - 2**16, np.uint8)


def cores():
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Block:
    """The shared memory as arrays: parameters and gradients are views, by name, of one long vector each."""

    def __init__(self, path, config, batch_size, workers, dtype):
        self.parts = np.array_split(np.arange(batch_size), workers)  # the images of every process
        number = config.number_of_parameters
        sizes = [
            number,
            batch_size * config.pixels,
            config.T * batch_size * config.z_size,
            workers * number,
            workers * 2,
        ]
        block = np.memmap(path, dtype, "r+" if Path(path).exists() else "w+", shape=(sum(sizes),))
        self.parameters, x, noise, gradients, nats = np.split(block, np.cumsum(sizes)[:-1])
        self.x = x.reshape(batch_size, config.pixels)
        self.noise = noise.reshape(config.T, batch_size, config.z_size)
        self.gradients, self.nats = gradients.reshape(workers, number), nats.reshape(workers, 2)
        self._shapes = config.shapes

    def by_name(self, vector):
        """The views of `vector`, as long as all parameters together, that have their names and shapes."""
        sizes = [int(np.prod(shape)) for shape in self._shapes.values()]
        parts = np.split(vector, np.cumsum(sizes)[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


class Workers:
    """Processes that share the batches of one model. They end with this object, or when its process ends."""

    def __init__(self, model, batch_size, count):
        self._model = model
        folder = tempfile.TemporaryDirectory(prefix="minidraw-", ignore_cleanup_errors=True)
        task = {
            "path": str(Path(folder.name) / "shared"),
            "config": asdict(model.config),
            "batch_size": batch_size,
            "workers": count,
            "dtype": model.parameters["mu/w"].value.dtype.name,
        }
        self._block = Block(task["path"], model.config, batch_size, count, task["dtype"])
        root = str(Path(__file__).parents[1])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", "from minidraw.share import work; work()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | ONE_THREAD | {"PYTHONPATH": paths},
                encoding="utf-8",
            )
            for _ in range(count)
        ]
        self._end = weakref.finalize(self, _end, self._processes, folder)
        for number, process in enumerate(self._processes):
            self._tell(process, json.dumps(task | {"number": number}))
        self._wait_for_all()  # until every process has mapped the file
        if os.name == "posix":  # where a file that is open may lose its name: then not even kill -9 leaves it behind
            folder.cleanup()

    @property
    def pids(self):
        return [process.pid for process in self._processes]

    def gradients(self, x, noise, meanwhile):
        """`gradients_of` the whole batch; `meanwhile()` is done while they work. BadInput if a process has ended."""
        block = self._block
        np.concatenate([array.ravel() for array in self._model.arrays().values()], out=block.parameters)
        block.x[:], block.noise[:] = x, noise
        for process in self._processes:
            self._tell(process, "begin")
        meanwhile()
        self._wait_for_all()
        L_x, L_z = block.nats.sum(axis=0)
        return L_x, L_z, list(block.by_name(block.gradients.sum(axis=0)).values())

    def _wait_for_all(self):
        for process in self._processes:
            if process.stdout.readline() != "done\n":
                self._lost()

    def _tell(self, process, line):
        try:
            print(line, file=process.stdin, flush=True)
        except OSError:
            self._lost()

    def _lost(self):
        self._end()
        raise BadInput("a process that shares the batch ended unexpectedly, perhaps for lack of memory: --workers 1")


def _end(processes, folder):
    for process in processes:
        with contextlib.suppress(OSError):  # one that is gone already
            process.stdin.close()  # which ends its loop
    for process in processes:
        process.wait()
        process.stdout.close()
    folder.cleanup()


def work():
    """The life of one process: a task, then a batch for every line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that is in charge
    task = json.loads(sys.stdin.readline())
    config, number = Config(**task["config"]), task["number"]
    block = Block(task["path"], config, task["batch_size"], task["workers"], task["dtype"])
    model, mine = Draw(config, block.by_name(block.parameters)), block.parts[number]
    mine = slice(mine[0], mine[-1] + 1)
    keep_memory()
    if hasattr(os, "SCHED_BATCH"):  # Linux: else the first to begin takes the core from the one that tells the others
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    print("done", flush=True)
    while sys.stdin.readline():
        *nats, gradients = gradients_of(model, block.x[mine], block.noise[:, mine], task["batch_size"])
        block.nats[number] = nats
        np.concatenate([gradient.ravel() for gradient in gradients], out=block.gradients[number])
        print("done", flush=True)
