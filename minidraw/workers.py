"""Who does the work of a training step: this process, or several that share it. Chapter 15.

NumPy spreads only its larger matrix products over the cores, and everything else of a step waits on one of them.
Images do not depend on each other before their gradients are added, nor parameters once the gradient's norm is known.
So as many processes as there are cores can do nearly all of a step at once: each goes forward and backward for its
own images; then each adds up everybody's gradients for its own part of the parameters; then it does Adam's update for
them. They share memory, a file that all of them map: the parameters, Adam's state, the images, the noise, and the
gradients of each. A line through a pipe says what to do, another that it is done.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from dataclasses import asdict
from pathlib import Path

import numpy as np

from minidraw.adam import Adam, global_norm
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.errors import BadInput, WorkerLost
from minidraw.objective import nats_and_gradients

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "BLIS")}
ONE_THREAD["VECLIB_MAXIMUM_THREADS"] = "1"
DONE = "minidraw: done"


def cores():
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def uninterrupted():
    """A context in which Ctrl-C waits: the KeyboardInterrupt comes when it ends."""
    if threading.current_thread() is not threading.main_thread():  # Ctrl-C goes to the main thread alone
        yield
        return
    arrived = []
    before = signal.signal(signal.SIGINT, lambda *about: arrived.append(about))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if arrived and callable(before):
            before(*arrived[0])


def start_python(code, environment):
    """A Python process of this library that runs `code`, with pipes to its standard input and output.

    It is in a session of its own: Ctrl-C, and a terminal that closes, are for the process in charge.
    """
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],  # -P: not from a folder named minidraw where we stand
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | environment | {"PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


class InProcess:
    """This process does everything, on the CPU or on a GPU. It and WorkerPool have the same two methods.

    `last_gradients` holds those that were computed last, arrays in the parameters' order.
    """

    pids = ()  # no others

    def __init__(self, model, adam, recipe):
        self._model, self._adam, self._batch_size = model, adam, recipe.batch_size

    def gradients(self, x, noise):
        """L_x and L_z of a batch, and the global norm of the gradients of their sum: 0-d arrays, in nats."""
        L_x, L_z, self.last_gradients = nats_and_gradients(self._model, x, noise, self._batch_size)
        return L_x, L_z, global_norm(self.last_gradients)

    def update(self, factor, learning_rate):
        """Adam's update with `factor` times these gradients."""
        self._adam.update([factor * gradient for gradient in self.last_gradients], learning_rate)


class SharedArrays:
    """The shared memory as arrays. `parameters`, `m`, `v` and every row of `gradients` are one long vector each."""

    def __init__(self, path, config, batch_size, workers, dtype):
        number = config.number_of_parameters
        shapes = {
            "parameters": (number,),
            "m": (number,),
            "v": (number,),
            "gradients": (workers, number),  # a row for each worker; their sum is made in the first
            "nats": (workers, 2),  # L_x and L_z of the images of each
            "squares": (workers,),  # the sum over each one's part of the gradient
            "x": (batch_size, config.pixels),
            "noise": (config.T, batch_size, config.z_size),
        }
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        if not Path(path).exists():
            _reserve(path, sum(sizes) * np.dtype(dtype).itemsize)
        memory = np.asarray(np.memmap(path, dtype, "r+", shape=(sum(sizes),)))  # a plain array: its views are cheaper
        for (name, shape), part in zip(shapes.items(), _cut(memory, sizes), strict=True):
            setattr(self, name, part.reshape(shape))
        self._shapes = config.shapes

    def by_parameter(self, vector):
        """The views of `vector`, as long as all parameters together, that have their names and shapes."""
        parts = _cut(vector, [int(np.prod(shape)) for shape in self._shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


def _reserve(path, size):
    """Make a file of `size` zeros, on the disk and not only by name: a page that finds no room later ends a process."""
    with open(path, "xb") as file:
        for start in range(0, size, 2**20):
            file.write(bytes(min(2**20, size - start)))


def _cut(vector, sizes):
    return np.split(vector, np.cumsum(sizes)[:-1])


def _part(rank, total, workers):
    """The slice of `total` things that worker number `rank` takes care of."""
    return slice(rank * total // workers, (rank + 1) * total // workers)


class WorkerPool:
    """Processes that share the batches of one model, and Adam's updates. They end with this object or its process.

    The parameters and the state of `adam` move into the shared memory, and stay there.
    """

    def __init__(self, model, adam, recipe):
        """Raises BadInput where there is no room for the shared memory, WorkerLost where a process does not start."""
        self._adam, self._owner = adam, os.getpid()
        self._processes = []
        folder = tempfile.TemporaryDirectory(prefix="minidraw-", ignore_cleanup_errors=True)
        self._end = weakref.finalize(self, _end, self._processes, folder)
        try:
            self._share(model, adam, recipe, str(Path(folder.name) / "shared"))
        except OSError as error:
            self._end()
            message = f"no room for the workers' shared memory in {Path(folder.name).parent} ({error.strerror})"
            raise BadInput(f"{message}: set TMPDIR to another folder, or use 1 worker", "workers") from None
        except BaseException:  # Ctrl-C, too
            self._end()
            raise
        if os.name == "posix":  # where a file that is open may lose its name: then not even kill -9 leaves it behind
            folder.cleanup()

    def _share(self, model, adam, recipe, path):
        """Start the processes, and move the parameters and the state of `adam` once all of them are there."""
        setup = {
            "path": path,
            "config": asdict(model.config),
            "batch_size": recipe.batch_size,
            "workers": recipe.workers,
            "dtype": model.dtype.name,
        }
        shared = self._shared = SharedArrays(path, model.config, recipe.batch_size, recipe.workers, model.dtype.name)
        self.last_gradients = list(shared.by_parameter(shared.gradients[0]).values())
        for _ in range(recipe.workers):
            self._processes.append(start_python("from minidraw.workers import work; work()", ONE_THREAD))
        for rank, process in enumerate(self._processes):
            self._tell(process, setup | {"rank": rank})
        self._wait_for_all()  # until every process has mapped the file
        with uninterrupted():
            adam.parameters, adam.m, adam.v = (
                _moved(arrays, shared.by_parameter(vector).values())
                for arrays, vector in ((adam.parameters, shared.parameters), (adam.m, shared.m), (adam.v, shared.v))
            )
            for tensor, array in zip(model.parameters.values(), adam.parameters, strict=True):
                tensor.value = array

    @property
    def pids(self):
        return [process.pid for process in self._processes]

    def gradients(self, x, noise):
        """As of InProcess. Raises WorkerLost."""
        shared = self._shared
        shared.x[:], shared.noise[: len(noise)] = x, noise
        self._ask({"do": "gradients", "T": len(noise)})
        self._ask({"do": "sum"})
        L_x, L_z = shared.nats.sum(axis=0)
        return L_x, L_z, np.sqrt(shared.squares.sum())

    def update(self, factor, learning_rate):
        """As of InProcess. Raises WorkerLost."""
        self._adam.t += 1
        self._ask({"do": "update", "t": self._adam.t, "factor": float(factor), "learning_rate": learning_rate})

    def _ask(self, what):
        if os.getpid() != self._owner:
            raise BadInput("a fork of the process in charge has no workers: deep-copy the Trainer before you fork")
        try:
            for process in self._processes:
                self._tell(process, what)
            self._wait_for_all()
        except BaseException:  # Ctrl-C, too: they end what they were asked to do, and no answer will be read later
            self._end()
            raise

    def _wait_for_all(self):
        for process in self._processes:
            for line in process.stdout:  # whatever else a process may print as it starts
                if line.endswith(DONE + "\n"):
                    break
            else:
                self._lost()

    def _tell(self, process, what):
        try:
            print(json.dumps(what), file=process.stdin, flush=True)
        except (OSError, ValueError):  # it is gone; or it was ended, and its pipe is closed
            self._lost()

    def _lost(self):
        self._end()
        message = "a process that shared the batch ended unexpectedly, perhaps for lack of memory: use 1 worker"
        raise WorkerLost(message, "workers")


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
        process.stdout.close()
        process.wait()
    folder.cleanup()


def work():
    """The life of one worker: its setup, and then whatever it is asked to do, line by line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process in charge
    try:
        _serve()
    except (BrokenPipeError, MemoryError):  # nobody reads its answers any more; or the one in charge will say so
        os._exit(1)


def _serve():
    setup = json.loads(sys.stdin.readline() or "null")
    if setup is None:  # the one in charge has gone already
        return
    config, rank, workers, batch_size = Config(**setup["config"]), setup["rank"], setup["workers"], setup["batch_size"]
    shared = SharedArrays(setup["path"], config, batch_size, workers, setup["dtype"])
    model, images = Draw(config, shared.by_parameter(shared.parameters)), _part(rank, batch_size, workers)
    mine = _part(rank, config.number_of_parameters, workers)
    adam, gradient = Adam([shared.parameters[mine]]), shared.gradients[0, mine]
    adam.m, adam.v = [shared.m[mine]], [shared.v[mine]]
    places = shared.by_parameter(shared.gradients[rank]).values()
    print(DONE, flush=True)
    for line in iter(sys.stdin.readline, ""):
        match json.loads(line):
            case {"do": "gradients", "T": T}:
                x, noise = shared.x[images], shared.noise[:T, images]
                *nats, gradients = nats_and_gradients(model, x, noise, batch_size)
                _moved(gradients, places)
                shared.nats[rank] = nats
            case {"do": "sum"}:
                for others in shared.gradients[1:, mine]:
                    gradient += others
                shared.squares[rank] = gradient @ gradient
            case {"do": "update", "t": t, "factor": factor, "learning_rate": learning_rate}:
                adam.t = t - 1
                adam.update([factor * gradient], learning_rate)
        print(DONE, flush=True)
