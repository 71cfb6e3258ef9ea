"""A batch shared among processes: the same training, but for rounding, and nothing left running."""

import gc
import os
import signal
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.errors import BadInput, WorkerLost
from minidraw.images import load_images
from minidraw.runs import Run
from minidraw.training import Recipe, Trainer, best_workers
from minidraw.workers import WorkerPool

CONFIG = Config(T=2, read_N=2, write_N=2, z_size=2, enc_size=6, dec_size=5, A=5, B=6, learned_start=True)
RECIPE = Recipe(steps=6, horizon=6, batch_size=10, warm_up=3, workers=2)


@pytest.fixture
def images(small_images):
    return load_images(small_images)


def trainer(images, config=CONFIG, **changes):
    recipe = replace(RECIPE, **changes)
    return Trainer(Draw.initial(config, recipe.seed), images, recipe)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, read_N=None, write_N=None)])
def test_shared_steps_are_those_of_the_whole_batch(images, config):
    """Three processes, of 3, 3 and 4 images, against one."""
    alone, shared = trainer(images, config, workers=1), trainer(images, config, workers=3)
    for _ in range(2):
        want, got = next(alone), next(shared)
        np.testing.assert_allclose(got, want, rtol=1e-5)  # the nats, and the norm of the gradients
        for array, wanted, name in zip(
            shared.executor.last_gradients, alone.executor.last_gradients, config.shapes, strict=True
        ):
            np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max(), err_msg=name)


def test_one_seed_one_result(images):
    assert list(trainer(images)) == list(trainer(images))


def test_a_run_that_was_interrupted_within_a_step_goes_on_as_if_it_had_not_been(images, monkeypatch):
    """In a notebook: Ctrl-C while the processes work, and then the loop again."""
    want, interrupted = list(trainer(images)), trainer(images)
    metrics = [next(interrupted)]

    def stop(pool):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkerPool, "_wait_for_all", stop)
        with pytest.raises(KeyboardInterrupt):
            next(interrupted)
    assert metrics + list(interrupted) == want


def test_a_step_that_is_interrupted_while_the_parameters_change_is_a_whole_one(images):
    want, interrupted = list(trainer(images)), trainer(images)
    pool, asked = interrupted.executor, []

    def stop_at_the_update():
        asked.append(True)
        if len(asked) == 3:  # after the gradients and their sum
            raise KeyboardInterrupt
        WorkerPool._wait_for_all(pool)

    pool._wait_for_all = stop_at_the_update
    with pytest.raises(KeyboardInterrupt):
        next(interrupted)
    assert list(interrupted) == want[1:]


def test_a_resumed_run_changes_no_bit(images, small_images, tmp_path):
    def bits(folder):
        with np.load(folder / "checkpoint.npz") as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}, (folder / "metrics.jsonl").read_bytes()

    for _ in Run.new(tmp_path / "whole", CONFIG, RECIPE, images, small_images).train():
        pass
    run = Run.new(tmp_path / "stopped", CONFIG, RECIPE, images, small_images)
    for metrics in run.train():
        if metrics.step == 3:
            break
    run.save()
    for _ in Run.resume(tmp_path / "stopped").train():
        pass
    assert bits(tmp_path / "stopped") == bits(tmp_path / "whole")


def test_the_processes_end_with_the_trainer(images, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one = trainer(images)
    next(one)
    if os.name == "posix":
        assert list(tmp_path.iterdir()) == []  # nothing is left behind, however the program ends
    processes = one.executor._processes
    assert [process.poll() for process in processes] == [None, None]
    del one
    gc.collect()
    assert [process.poll() for process in processes] == [0, 0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_is_left_to_the_process_in_charge(images):
    one = trainer(images)
    next(one)
    for process in one.executor._processes:
        os.kill(process.pid, signal.SIGINT)
    assert next(one).step == 2


@pytest.mark.parametrize("gone", [False, True], ids=["while it works", "before it is told"])
def test_a_lost_process_is_one_clear_line(images, gone):
    one = trainer(images)
    next(one)
    before = {name: array.copy() for name, array in one.model.arrays().items()}
    one.executor._processes[1].kill()
    if gone:
        one.executor._processes[1].wait()
    with pytest.raises(WorkerLost, match="ended unexpectedly"):
        next(one)
    for name, array in one.model.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_processes_do_not_take_a_folder_of_the_same_name_for_the_library(images, tmp_path, monkeypatch):
    (tmp_path / "minidraw").mkdir()
    (tmp_path / "minidraw" / "__init__.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(tmp_path)
    assert next(trainer(images)).step == 1


def test_the_number_of_workers_that_serves_best(monkeypatch):
    monkeypatch.setattr("minidraw.training.cores", lambda: 8)
    assert [best_workers(batch_size) for batch_size in (300, 100, 10)] == [8, 4, 1]


def test_more_workers_than_images_are_refused():
    with pytest.raises(BadInput, match="11 workers cannot share a batch of 10"):
        replace(RECIPE, workers=11)


def test_the_benchmark_of_the_peers_runs(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
    peers = import_module("peers")
    config = Config(T=2, read_N=2, write_N=2, z_size=2, enc_size=4, dec_size=4)
    contestant = peers.Contestant(peers.ALONE, config, Recipe(batch_size=4), "cpu")
    losses, gradients = contestant.check()
    assert losses.shape == (4,) and losses[1] == pytest.approx(losses[0], rel=1e-6) and len(set(losses[1:])) == 3
    assert {name: gradient.shape for name, gradient in gradients.items()} == config.shapes
    assert len(contestant.turn(2)) == 2 and np.abs(gradients["write/w"]).max() > 0
