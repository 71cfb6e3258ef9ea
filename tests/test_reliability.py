"""Nothing lost, nothing silently wrong: a short part of tests/torture, and each thing that once went wrong."""

import copy
import gzip
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from torture.calls import calls
from torture.common import call, children, left_behind, resume, state, train
from torture.disks import full_disks
from torture.fuzz import fuzz, with_other_header
from torture.interrupts import CONFIG, RECIPE, interrupts
from torture.kills import kills, pairs, stops

from minidraw import adam, checkpoint, workers
from minidraw.draw import Draw
from minidraw.errors import BadInput, Diverged
from minidraw.files import locked, write_atomically
from minidraw.images import load_images
from minidraw.runs import Run
from minidraw.training import Trainer

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, limits and FIFOs are POSIX's")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")


def trainer(images, **changes):
    return Trainer(Draw.initial(CONFIG), load_images(images), replace(RECIPE, **changes))


def bits(trainer):
    return [array.tobytes() for array in (*trainer.adam.parameters, *trainer.adam.m, *trainer.adam.v)]


@pytest.fixture(scope="module")
def saved(small_images, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run") / "run"
    list(Run.new(folder, CONFIG, RECIPE, load_images(small_images), small_images).train())
    return folder


# A short part of the torture


def test_wrong_calls(small_images):
    done, wrong = calls(small_images)
    assert done >= 100 and wrong == []


def test_fuzzed_files(small_images, saved, tmp_path):
    assert fuzz(tmp_path, small_images, saved, 420)[1] == []


@posix
def test_interrupts(small_images):
    assert interrupts(small_images, 5)[1] == []


@linux
@pytest.mark.slow
def test_kills(small_images, tmp_path):
    assert kills(tmp_path, small_images, 2, workers_tried=[2])[1] == []


@linux
@pytest.mark.slow
def test_stops(small_images, tmp_path):
    assert stops(tmp_path, small_images, 1)[1] == []


@posix
@pytest.mark.slow
def test_full_disks(small_images, tmp_path):
    assert full_disks(tmp_path, small_images, 1)[1] == []


@posix
@pytest.mark.slow
def test_two_processes_on_one_run(small_images, tmp_path):
    assert pairs(tmp_path, small_images, 1)[1] == []


# One process a run


@posix
def test_a_run_is_locked_while_it_trains(small_images, tmp_path):
    run = Run.new(tmp_path / "run", CONFIG, RECIPE, load_images(small_images), small_images)
    steps = run.train()
    next(steps)
    with pytest.raises(BadInput, match="run is in use: another process"):
        Run.resume(tmp_path / "run")
    steps.close()
    run.save()
    other = Run.resume(tmp_path / "run")
    list(other.train())
    with pytest.raises(BadInput, match="somebody else went on with this run"):
        run.save()
    assert other.trainer.steps_done == 12


@posix
def test_a_save_while_a_run_is_taken_up_is_noticed(small_images, tmp_path, monkeypatch):
    run = Run.new(tmp_path / "run", CONFIG, RECIPE, load_images(small_images), small_images)
    load = checkpoint.load_run

    def load_slowly(folder, xp):
        saved = load(folder, xp)
        list(run.train())  # the other process saves here, and ends
        return saved

    monkeypatch.setattr(checkpoint, "load_run", load_slowly)
    with pytest.raises(BadInput, match="somebody else went on with this run"):
        Run.resume(tmp_path / "run")
    assert len(run.history()["step"]) == 12


@posix
def test_a_lock_is_not_opened_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), locked(tmp_path / ".lock"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_every_write_has_a_file_of_its_own(tmp_path):
    def nested(file):
        file.write(b"outer")
        write_atomically(tmp_path / "file", lambda inner: inner.write(b"inner"))

    write_atomically(tmp_path / "file", nested)
    assert (tmp_path / "file").read_bytes() == b"outer" and left_behind(tmp_path) == []


def test_a_kill_during_the_first_save_is_no_dead_end(small_images, tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".lock", "checkpoint.npz.0a1b2c3d.partial"):
        (tmp_path / "run" / name).write_bytes(b"PK")
    with pytest.raises(BadInput, match="nothing was saved here yet"):
        Run.resume(tmp_path / "run")
    list(Run.new(tmp_path / "run", CONFIG, RECIPE, load_images(small_images), small_images).train())
    assert left_behind(tmp_path / "run") == []


def test_a_finished_run_is_tidied_and_drawn_again(saved, small_images):
    (saved / "samples.png").write_bytes(b"stale")
    (saved / "samples.png.0a1b2c3d.partial").write_bytes(b"")
    before = state(saved)
    status, out, _ = call(resume(saved))
    assert status == 0 and "has done all of its 12 steps" in out
    assert (saved / "samples.png").read_bytes()[:4] == b"\x89PNG" and left_behind(saved) == []
    assert state(saved) == before


# A step is whole or not at all


def test_ctrl_c_waits_while_the_parameters_change(small_images, monkeypatch):
    want, one, count = trainer(small_images), trainer(small_images), []
    list(want)
    update = adam._update

    def interrupted(*arguments):
        update(*arguments)
        count.append(1)
        if len(count) == 5:  # within the first step
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(adam, "_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(one)
    assert one.steps_done == 1
    list(one)
    assert bits(one) == bits(want)


def test_ctrl_c_while_the_workers_start(small_images, monkeypatch):
    want, one, start = trainer(small_images, workers=2), trainer(small_images, workers=2), workers.start_python
    list(want)
    started = []

    def interrupted(*arguments):
        if started:
            raise KeyboardInterrupt
        started.append(start(*arguments))
        return started[0]

    with monkeypatch.context() as patch:
        patch.setattr(workers, "start_python", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(one)
    assert started[0].poll() is not None  # it has ended
    list(one)
    assert bits(one) == bits(want)


def test_no_room_for_the_workers_is_one_line(small_images, monkeypatch):
    def full(path, size):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(workers, "_reserve", full)
        one = trainer(small_images, workers=2)
        with pytest.raises(BadInput, match=r"no room for the workers' shared memory in .*set TMPDIR"):
            next(one)
    assert next(one).step == 1


def test_shared_memory_is_reserved_and_not_only_named(tmp_path):
    workers._reserve(tmp_path / "shared", 3_000_000)
    about = os.stat(tmp_path / "shared")
    assert about.st_size == 3_000_000 and getattr(about, "st_blocks", 9999) * 512 >= 3_000_000


def test_a_deep_copy_is_a_run_of_its_own(small_images):
    for number in (1, 2):
        one = trainer(small_images, workers=number)
        next(one)
        other = copy.deepcopy(one)
        list(one)
        assert other.steps_done == 1
        list(other)
        assert bits(other) == bits(one)


@posix
def test_a_fork_is_told_so(small_images):
    one = trainer(small_images, workers=2)
    next(one)
    child = os.fork()
    if child == 0:
        try:
            next(one)
        except BadInput:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert next(one).step == 2


def test_a_run_that_is_no_longer_finite_is_not_saved(small_images, tmp_path):
    run = Run.new(tmp_path / "run", CONFIG, RECIPE, load_images(small_images), small_images)
    before = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    run.trainer.adam.v[0][...] = np.inf
    with pytest.raises(Diverged):
        run.save()
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == before


# Files made to harm


def gz_bomb(path):
    with gzip.open(path, "wb") as file:
        file.write(b"\x00\x00\x08\x03" + np.array((60, 6, 5), ">u4").tobytes())
        for _ in range(64):
            file.write(bytes(2**20))


def huge_npy(path):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**12}, 6, 5), }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(1000))


def many_dimensions(path):
    path.write_bytes(b"\x00\x00\x08\x41" + np.ones(65, ">u4").tobytes() + b"\x01")


def many_gigabytes(path):
    path.write_bytes(b"\x00\x00\x08\x03" + np.array((2**30, 2**10, 2**10), ">u4").tobytes())


@pytest.mark.parametrize("make", [gz_bomb, huge_npy, many_dimensions, many_gigabytes], ids=lambda make: make.__name__)
def test_files_made_to_harm(tmp_path, make):
    path = tmp_path / ("images.npy" if make is huge_npy else "images")
    make(path)
    with pytest.raises(BadInput, match="damaged"):
        load_images(path)


@posix
@pytest.mark.parametrize("name", ["images", "images.npy", "images.npz"])
def test_a_fifo_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadInput, match="not a file that could be read"):
        load_images(tmp_path / name)


@posix
def test_devices_are_not_read():
    with pytest.raises(BadInput, match="not a file that could be read"):
        load_images("/dev/zero")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("config", {"T": 10**6}, "T is 1000000"),
        ("config", {"A": 10**9}, "A is 1000000000"),
        ("about", {"data": 0}, "data is 0"),
        ("recipe", {"workers": 50_000, "batch_size": 50_000}, "workers is 50000"),
        ("recipe", {"growth": [["x", 1]]}, "damaged header"),
    ],
)
def test_headers_made_to_harm(saved, tmp_path, part, change, message):
    with np.load(saved / "checkpoint.npz") as arrays:
        arrays = dict(arrays)
    header = json.loads(str(arrays["header"]))
    header[part] |= change
    np.savez(tmp_path / "checkpoint.npz", **arrays | {"header": np.array(json.dumps(header))})
    with pytest.raises(BadInput, match=message):
        checkpoint.load(tmp_path / "checkpoint.npz")


@pytest.mark.parametrize("odd", [{"step": np.array(np.inf)}, {"header": np.array("[" * 100_000)}])
def test_numbers_and_nesting_without_end(saved, tmp_path, odd):
    with np.load(saved / "checkpoint.npz") as arrays:
        np.savez(tmp_path / "checkpoint.npz", **dict(arrays) | odd)
    with pytest.raises(BadInput, match="damaged header"):
        checkpoint.load(tmp_path / "checkpoint.npz")


def test_the_fuzzer_makes_files_that_differ(saved):
    import random

    content = (saved / "checkpoint.npz").read_bytes()
    assert len({with_other_header(content, random.Random(k)) for k in range(20)}) > 10
    assert isinstance(io.BytesIO(content).read(2), bytes)


# Odd surroundings


@posix
@pytest.mark.slow
@pytest.mark.parametrize("where", ["2>/dev/full", ">&- 2>&-"])
def test_training_goes_on_where_nothing_can_be_written(small_images, tmp_path, where):
    if "full" in where and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    command = shlex.join(train(small_images, tmp_path / "run", steps=4))
    status, _, err = call(["sh", "-c", f"exec {command} {where}"])
    assert status == 0 and "Traceback" not in err
    assert len(state(tmp_path / "run")[1]) == 4


@posix
@pytest.mark.slow
def test_workers_that_print_as_they_start(small_images, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("print('hello', end='')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-16")
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    command = train(small_images, tmp_path / "run", steps=3, workers=2)
    done = subprocess.run(command, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(state(tmp_path / "run")[1]) == 3


def test_a_newline_in_a_path_is_one_line(tmp_path):
    status, _, err = call([sys.executable, "-m", "minidraw", "train", "--data", str(tmp_path / "no\nsuch")])
    assert status == 1 and err.count("\n") == 1 and "no\\nsuch" in err


def test_a_learning_rate_beyond_all_numbers_is_one_line(small_images, tmp_path):
    command = [*train(small_images, tmp_path / "run"), "--learning-rate", "1e300"]
    status, _, err = call(command)
    assert status == 1 and "diverged" in err.splitlines()[-1] and "Warning" not in err
    assert checkpoint.load(tmp_path / "run" / "checkpoint.npz").step >= 0


@linux
def test_no_worker_is_left():
    import gc

    gc.collect()
    assert children() == []
