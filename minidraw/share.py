"""Who does the work of a training step: this process alone, or several that share it. Chapter 15.

NumPy spreads only its larger matrix products over the cores, and everything else of a step waits on one of them.
Images do not depend on each other before their gradients are added, nor parameters once the gradient's norm is known.
So as many processes as there are cores can do nearly all of a step at once: each goes forward and backward for its
own images; then each adds up everybody's gradients for its own share of the parameters; then it does Adam's step for
them. They share one block of memory, a file that all of them map: the parameters, Adam's state, the images, the
noise, and what every process found. A line through a pipe says what to do, another "done".
"""

import contextlib
import gc
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

from minidraw.adam import Adam, global_norm
from minidraw.autodiff import backward
from minidraw.draw import Config, Draw
from minidraw.errors import BadInput

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "BLIS")}
ONE_THREAD["VECLIB_MAXIMUM_THREADS"] = "1"


def gradients_of(model, x, noise, batch_size, into=None):
    """What the images x and their noise contribute to a batch of `batch_size`: (L_x, L_z, gradients).

    Two 0-d arrays in nats and a list of arrays in the parameters' order, new or `into`; summed over the parts of a
    batch they are its mean and the gradients of that mean.
    """
    with np.errstate(all="ignore"):  # what overflows shows in the values: the trainer looks at them
        L_x, L_z = (nats.sum() * (1 / batch_size) for nats in model.nats(x, noise))
        return L_x.value, L_z.value, backward(L_x + L_z, model.parameters.values(), into)


def keep_memory():
    """Tell glibc to keep freed memory for the next step: without this every step asks the system for it again.

    Freeing one block of nearly 32 MiB raises its thresholds for returning memory to the system (see mallopt(3),
    M_MMAP_THRESHOLD); elsewhere this is one allocation that is never touched.
    """
    np.empty(2**25 - 2**16, np.uint8)


def cores():
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Alone:
    """One process that does everything, on the CPU or on a GPU; it and Workers have the same two methods.

    `found` holds the gradients that were found last, arrays in the parameters' order.
    """

    pids = ()  # no others

    def __init__(self, model, adam, batch_size):
        self._model, self._adam, self._batch_size = model, adam, batch_size

    def gradients(self, x, noise, meanwhile):
        """L_x and L_z of a batch, and the global norm of the gradients of their sum: 0-d arrays, in nats.

        `meanwhile()` is done while a GPU, or others, work.
        """
        L_x, L_z, self.found = gradients_of(self._model, x, noise, self._batch_size)
        norm = global_norm(self.found)
        meanwhile()
        return L_x, L_z, norm

    def update(self, learning_rate, factor):
        """Adam's step against `factor` times these gradients."""
        self._adam.step(self.found, learning_rate, factor)


class Block:
    """The shared memory as arrays. `parameters`, `m`, `v` and every row of `gradients` are one long vector each."""

    def __init__(self, path, config, batch_size, workers, dtype):
        number = config.number_of_parameters
        shapes = {
            "parameters": (number,),
            "m": (number,),
            "v": (number,),
            "gradients": (workers, number),  # a row for each process; their sum is made in the first
            "nats": (workers, 2),  # L_x and L_z of everybody's images
            "squares": (workers,),  # of everybody's share of the gradient, summed
            "x": (batch_size, config.pixels),
            "noise": (config.T, batch_size, config.z_size),
        }
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        mode = "r+" if Path(path).exists() else "w+"
        block = np.asarray(np.memmap(path, dtype, mode, shape=(sum(sizes),)))  # a plain array: its views are cheaper
        for (name, shape), part in zip(shapes.items(), _parts(block, sizes), strict=True):
            setattr(self, name, part.reshape(shape))
        self._shapes = config.shapes

    def by_name(self, vector):
        """The views of `vector`, as long as all parameters together, that have their names and shapes."""
        parts = _parts(vector, [int(np.prod(shape)) for shape in self._shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


def _parts(vector, sizes):
    return np.split(vector, np.cumsum(sizes)[:-1])


def _share(number, total, count):
    """The slice of `total` things that process `number` of `count` takes care of."""
    return slice(number * total // count, (number + 1) * total // count)


class Workers:
    """Processes that share the batches of one model, and Adam's steps. They end with this object or with its process.

    The parameters and the state of `adam` move into the shared memory, and stay there.
    """

    def __init__(self, model, adam, batch_size, count):
        self._adam = adam
        folder = tempfile.TemporaryDirectory(prefix="minidraw-", ignore_cleanup_errors=True)
        task = {
            "path": str(Path(folder.name) / "shared"),
            "config": asdict(model.config),
            "batch_size": batch_size,
            "workers": count,
            "dtype": model.parameters["mu/w"].value.dtype.name,
        }
        block = self._block = Block(task["path"], model.config, batch_size, count, task["dtype"])
        parameters, adam.m, adam.v = (
            _moved(arrays, block.by_name(vector).values())
            for arrays, vector in ((adam.parameters, block.parameters), (adam.m, block.m), (adam.v, block.v))
        )
        adam.parameters = parameters
        for tensor, array in zip(model.parameters.values(), parameters, strict=True):
            tensor.value = array
        self.found = list(block.by_name(block.gradients[0]).values())
        root = str(Path(__file__).parents[1])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", "from minidraw.share import work; work()"],  # -P: not from this folder
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | ONE_THREAD | {"PYTHONPATH": paths},
                encoding="utf-8",
            )
            for _ in range(count)
        ]
        self._end = weakref.finalize(self, _end, self._processes, folder)
        for number, process in enumerate(self._processes):
            self._tell(process, task | {"number": number})
        self._wait_for_all()  # until every process has mapped the file
        if os.name == "posix":  # where a file that is open may lose its name: then not even kill -9 leaves it behind
            folder.cleanup()

    @property
    def pids(self):
        return [process.pid for process in self._processes]

    def gradients(self, x, noise, meanwhile):
        """As of Alone. Raises BadInput if a process has ended."""
        block = self._block
        block.x[:], block.noise[:] = x, noise
        self._ask({"do": "gradients"}, meanwhile)
        self._ask({"do": "sum"})
        L_x, L_z = block.nats.sum(axis=0)
        return L_x, L_z, np.sqrt(block.squares.sum())

    def update(self, learning_rate, factor):
        """As of Alone."""
        self._adam.t += 1
        self._ask({"do": "update", "t": self._adam.t, "learning_rate": learning_rate, "factor": float(factor)})

    def _ask(self, what, meanwhile=lambda: None):
        try:
            for process in self._processes:
                self._tell(process, what)
            meanwhile()
            self._wait_for_all()
        except BaseException:  # Ctrl-C, too: they end what they were asked to do, and no answer will be read later
            self._end()
            raise

    def _wait_for_all(self):
        for process in self._processes:
            if process.stdout.readline() != "done\n":
                self._lost()

    def _tell(self, process, what):
        try:
            print(json.dumps(what), file=process.stdin, flush=True)
        except OSError:
            self._lost()

    def _lost(self):
        self._end()
        raise BadInput("a process that shares the batch ended unexpectedly, perhaps for lack of memory: --workers 1")


def _moved(arrays, places):
    """`places`, with the numbers of `arrays` in them."""
    for array, place in zip(arrays, places, strict=True):
        place[:] = array
    return list(places)


def _end(processes, folder):
    for process in processes:
        with contextlib.suppress(OSError):  # one that is gone already
            process.stdin.close()  # which ends its loop
    for process in processes:
        process.wait()
        process.stdout.close()
    folder.cleanup()


def work():
    """The life of one process: a task, and then whatever it is asked to do, line by line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that is in charge
    task = json.loads(sys.stdin.readline())
    config, number, count, batch_size = Config(**task["config"]), task["number"], task["workers"], task["batch_size"]
    block = Block(task["path"], config, batch_size, count, task["dtype"])
    model, images = Draw(config, block.by_name(block.parameters)), _share(number, batch_size, count)
    mine = _share(number, config.number_of_parameters, count)
    adam, gradient = Adam([block.parameters[mine]]), block.gradients[0, mine]
    adam.m, adam.v = [block.m[mine]], [block.v[mine]]
    found = list(block.by_name(block.gradients[number]).values())
    keep_memory()
    gc.disable()  # a step leaves nothing for the collector, which would look for it all the same
    if hasattr(os, "SCHED_BATCH"):  # Linux: else the first to begin takes the core from the one that tells the others
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    print("done", flush=True)
    for line in iter(sys.stdin.readline, ""):
        match json.loads(line):
            case {"do": "gradients"}:
                *nats, _ = gradients_of(model, block.x[images], block.noise[:, images], batch_size, into=found)
                block.nats[number] = nats
            case {"do": "sum"}:
                for others in block.gradients[1:, mine]:
                    gradient += others
                block.squares[number] = gradient @ gradient
            case {"do": "update", "t": t, "learning_rate": learning_rate, "factor": factor}:
                adam.t = t - 1
                adam.step([gradient], learning_rate, factor)
        print("done", flush=True)
