"""Training: one seed, one result; a run that was stopped, killed or diverged loses nothing that was saved."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minidraw import checkpoint, runs
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.errors import BadInput, Diverged
from minidraw.images import load_images, mnist
from minidraw.runs import Run
from minidraw.training import Recipe, Trainer

OLD = Path(__file__).parent / "old" / "checkpoint-1.npz"
CONFIG = Config(T=2, read_N=2, write_N=2, z_size=2, enc_size=6, dec_size=5, A=5, B=6)
RECIPE = Recipe(steps=12, horizon=12, batch_size=10, warm_up=3)


@pytest.fixture
def images(small_images):
    return load_images(small_images)


def trainer(images, **changes):
    recipe = Recipe(**{"steps": 12, "horizon": 12, "batch_size": 10, "warm_up": 3} | changes)
    return Trainer(Draw.initial(CONFIG, recipe.seed), images, recipe)


def state(folder):
    """Every array of a run's checkpoint, and its metrics, to the bit."""
    with np.load(folder / "checkpoint.npz") as arrays:
        return {n: arrays[n].tobytes() for n in arrays.files}, (folder / "metrics.jsonl").read_bytes()


def test_one_seed_one_result(images):
    runs = [list(trainer(images, seed=seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert [m.step for m in runs[0]] == list(range(1, 13))


@pytest.mark.slow
def test_it_learns_the_squares(images):
    """A seeded short run: from a blank canvas to a bound well below it."""
    history = list(trainer(images, steps=400, horizon=400, learning_rate=0.01))
    first, last = (np.mean([m.bound for m in part]) for part in (history[:10], history[-40:]))
    assert first == pytest.approx(30 * np.log(2), rel=0.1) and last < 0.72 * first


def test_every_image_is_seen_once_an_epoch_and_grey_ones_are_binarised_afresh(tmp_path):
    grey = np.linspace(0, 1, 40 * 30).reshape(40, 6, 5)
    np.save(tmp_path / "grey.npy", grey)
    one = trainer(load_images(tmp_path / "grey.npy"), batch_size=12)
    kept = trainer(load_images(tmp_path / "grey.npy", binary=False), batch_size=12, binary=False)
    epochs = [np.concatenate([kept.batch(step)[0] for step in range(3 * e + 1, 3 * e + 4)]) for e in range(2)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch[:, 0]), np.sort(kept.images.train[:, 0]))
    assert not np.array_equal(*epochs)
    batches = [one.batch(step)[0] for step in (1, 4)]
    assert all(set(np.unique(batch)) == {0, 1} for batch in batches)


def test_the_noise_is_fresh_for_every_step_image_and_t(images):
    noise = np.concatenate([trainer(images).batch(step)[1].ravel() for step in (1, 2, 3)])
    assert len(np.unique(noise)) == len(noise) == 3 * 2 * 10 * 2


def test_the_learning_rate_warms_up_and_decays_to_its_floor():
    recipe = Recipe(learning_rate=1e-3, warm_up=200, horizon=10_000)
    rates = [recipe.learning_rate_at(step) for step in (1, 100, 200, 5100, 10_000, 20_000)]
    np.testing.assert_allclose(rates, [5e-6, 5e-4, 1e-3, 5.25e-4, 5e-5, 5e-5], rtol=1e-9)


def test_the_learning_rate_can_be_held_before_it_decays():
    recipe = Recipe(learning_rate=1e-3, warm_up=200, hold=0.5, horizon=10_000, floor=0)
    rates = [recipe.learning_rate_at(step) for step in (100, 200, 5000, 7500, 10_000)]
    np.testing.assert_allclose(rates, [5e-4, 1e-3, 1e-3, 5e-4, 0], atol=1e-12)


def test_T_grows_with_the_recipe(images):
    """A quarter of the run with one glimpse, up to the half with two, the rest with the model's three."""
    config, recipe = replace(CONFIG, T=3), replace(RECIPE, growth=((0.25, 1), (0.5, 2)))
    one = Trainer(Draw.initial(config), images, recipe)
    assert [len(one.batch(step)[1]) for step in range(1, 13)] == [1] * 3 + [2] * 3 + [3] * 6
    assert [metrics.step for metrics in one] == list(range(1, 13))
    assert Recipe().T_at(1, 10) == 10


@pytest.mark.parametrize("growth", [((0.5, 2), (0.25, 1)), ((1.5, 1),), ((0.5, 0),), ((0.5, 1.5),)])
def test_growth_that_cannot_be(growth):
    with pytest.raises(BadInput, match="growth is"):
        Recipe(growth=growth)


def test_growth_beyond_the_model_is_refused(images):
    with pytest.raises(BadInput, match="beyond the model's T, 2"):
        trainer(images, growth=((0.5, 3),))


@pytest.mark.parametrize(
    ("number", "message"), [({"steps": 2.5}, "steps is 2.5"), ({"seed": -1}, "seed is -1"), ({"clip": 0}, "clip is 0")]
)
def test_numbers_that_cannot_be(number, message):
    with pytest.raises(BadInput, match=message):
        Recipe(**number)


def test_images_of_another_shape_are_refused():
    """Also where they have as many pixels."""
    model = Draw.initial(Config(T=1, z_size=1, enc_size=2, dec_size=2, A=14, B=56))
    with pytest.raises(BadInput, match=r"\(28, 28, 1\) for a model of \(56, 14, 1\)"):
        Trainer(model, mnist(), Recipe())


def test_a_batch_larger_than_the_data_is_refused(images):
    with pytest.raises(BadInput, match="batch_size 100 exceeds the 54 training images"):
        trainer(images, batch_size=100)


def test_divergence_stops_before_anything_changes(images):
    one = trainer(images)
    next(one)
    before = {name: value.copy() for name, value in one.model.arrays().items()}
    one.model.parameters["mu/b"].value[0] = np.nan
    before["mu/b"][0] = np.nan
    with pytest.raises(Diverged, match=r"step 2 .*nan.*a smaller learning rate"):
        next(one)
    assert one.steps_done == 1
    for name, value in one.model.arrays().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.fixture
def whole_run(images, small_images, tmp_path):
    run = Run.new(tmp_path / "whole", CONFIG, RECIPE, images, small_images)
    assert len(list(run.train())) == 12
    return run


def test_stopping_and_resuming_changes_no_bit(images, small_images, tmp_path, whole_run):
    run = Run.new(tmp_path / "stopped", CONFIG, RECIPE, images, small_images)
    steps = run.train()
    for _ in range(5):
        next(steps)
    steps.close()
    run.save()
    assert [m.step for m in Run.resume(tmp_path / "stopped").train()] == list(range(6, 13))
    assert state(tmp_path / "stopped") == state(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_resuming_changes_no_bit_where_T_grows(images, small_images, tmp_path, workers):
    config, recipe = replace(CONFIG, T=4), replace(RECIPE, growth=((0.25, 1), (0.5, 2)), workers=workers)
    list(Run.new(tmp_path / "whole", config, recipe, images, small_images).train())
    for stop in (2, 5):
        run = Run.new(tmp_path / f"stopped-{stop}", config, recipe, images, small_images)
        steps = run.train()
        for _ in range(stop):
            next(steps)
        steps.close()
        run.save()
        list(Run.resume(run.folder).train())
        assert state(run.folder) == state(tmp_path / "whole")


def test_a_run_saved_by_the_version_before_goes_on(images, small_images, tmp_path):
    """tests/old/checkpoint-1.npz: four of six steps on the images of `small_images`, by minidraw 0.1.0."""
    saved = checkpoint.load(OLD)
    assert saved.step == 4 and saved.model.config.channels == 1 and saved.recipe.growth == ()
    with np.load(OLD) as arrays:
        np.testing.assert_array_equal(saved.adam["v"]["mu/w"], arrays["v/mu/w"])
    (tmp_path / "run").mkdir()
    trainer = Trainer(saved.model, images, saved.recipe)
    trainer.adam.restore(saved.step, saved.adam["m"].values(), saved.adam["v"].values())
    checkpoint.save(tmp_path / "run" / "checkpoint.npz", trainer, saved.about | {"data": str(small_images)})
    assert [metrics.step for metrics in Run.resume(tmp_path / "run").train()] == [5, 6]


def test_work_after_the_last_checkpoint_is_done_again(images, small_images, tmp_path, whole_run):
    """As a power cut leaves it: metrics ahead of the checkpoint, the last line torn."""
    run = Run.new(tmp_path / "cut", CONFIG, RECIPE, images, small_images)
    steps = run.train()
    for _ in range(7):
        next(steps)
        if run.trainer.steps_done == 4:
            run.save()
    steps.close()
    with open(run.metrics, "a") as file:
        file.write('{"step": 8, "L_')
    list(Run.resume(tmp_path / "cut").train())
    assert state(tmp_path / "cut") == state(tmp_path / "whole")


@pytest.mark.slow
def test_kill_9_loses_only_what_was_not_saved(small_images, tmp_path):
    script = "import sys; from minidraw import cli, runs; runs.SAVE_EVERY = 0.1; sys.exit(cli.main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        script,
        "train",
        "--data",
        str(small_images),
        "--batch-size",
        "10",
        "--steps",
        "90",
    ]
    killed = subprocess.Popen([*command, "--out", str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    saved = tmp_path / "killed" / "checkpoint.npz"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if saved.exists() and 0 < checkpoint.load(saved).step:
            break
    killed.kill()
    killed.wait()
    step = checkpoint.load(saved).step
    assert 0 < step < 90
    resume = [sys.executable, "-m", "minidraw", "train", "--resume", str(tmp_path / "killed")]
    assert subprocess.run(resume, capture_output=True).returncode == 0
    assert subprocess.run([*command, "--out", str(tmp_path / "whole")], capture_output=True).returncode == 0
    assert state(tmp_path / "killed") == state(tmp_path / "whole")


def test_a_finished_run_can_be_extended(whole_run):
    with pytest.raises(BadInput, match="12 steps already"):
        Run.resume(whole_run.folder, steps=12)
    more = Run.resume(whole_run.folder, steps=20)
    assert [m.step for m in more.train()] == list(range(13, 21))
    lines = [json.loads(line) for line in whole_run.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert lines[-1]["learning_rate"] == pytest.approx(0.05e-3)  # beyond its horizon the schedule stays at its floor


@pytest.mark.slow
def test_validation_is_recorded_and_pictures_are_drawn(images, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "VALIDATE_EVERY", 5)
    run = Run.new(tmp_path / "run", CONFIG, RECIPE, images)
    list(run.train())
    history = run.history()
    assert history["step"] == list(range(1, 13)) and history["validation"][0] == [5, 10]
    assert {path.name for path in run.folder.iterdir()} == {
        ".lock",
        "checkpoint.npz",
        "metrics.jsonl",
        "samples.png",
        "loss.png",
    }


@pytest.mark.parametrize("line", ["garbage", "[1]", "{}", '{"step": 3}', "\x80"])
def test_a_damaged_metrics_file_is_named(whole_run, line):
    lines = whole_run.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    whole_run.metrics.write_bytes("".join([*lines[:4], line + "\n", *lines[4:]]).encode("latin-1"))
    with pytest.raises(BadInput, match=r"metrics.jsonl: line 5 is damaged"):
        Run.resume(whole_run.folder)


def test_an_occupied_folder_is_left_alone(images, whole_run):
    before = state(whole_run.folder)
    with pytest.raises(BadInput, match="exists already"):
        Run.new(whole_run.folder, CONFIG, RECIPE, images)
    assert state(whole_run.folder) == before


def test_no_half_made_run_stays_behind(images, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "checkpoint.npz")

    monkeypatch.setattr(checkpoint.np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        Run.new(tmp_path / "run", CONFIG, RECIPE, images)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_last_good_checkpoint(whole_run, monkeypatch):
    before = state(whole_run.folder)

    def torn(file, **_):
        file.write(b"PK half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.np, "savez", torn)
    with pytest.raises(OSError, match="No space left"):
        whole_run.save()
    assert state(whole_run.folder) == before
    assert not list(whole_run.folder.glob("*.partial"))


def test_changed_images_are_noticed(whole_run, small_images, tmp_path):
    changed = np.load(small_images)
    changed[0, 0, 0] ^= 255
    np.save(tmp_path / "changed.npy", changed)
    saved = checkpoint.load(whole_run.checkpoint)
    checkpoint.save(whole_run.checkpoint, whole_run.trainer, saved.about | {"data": str(tmp_path / "changed.npy")})
    with pytest.raises(BadInput, match="no longer the images"):
        Run.resume(whole_run.folder)


# Checkpoints that cannot be used


def damage(path, how):
    content = path.read_bytes()
    if how in ("truncated", "empty"):
        path.write_bytes(content[: len(content) // 2] if how == "truncated" else b"")
        return
    if how == "flipped":  # one bit inside an array: the archive's own checksum finds it
        middle = bytearray(content)
        middle[content.index(b"encoder/w.npy") + 400] ^= 1
        path.write_bytes(bytes(middle))
        return
    with np.load(path) as arrays:
        arrays = dict(arrays)
    if how == "pickled":
        arrays["parameters/mu/b"] = np.array([{"evil": 1}], dtype=object)
    elif how == "another configuration":
        arrays["header"] = np.array(str(arrays["header"]).replace('"z_size": 2', '"z_size": 3'))
    elif how == "impossible configuration":
        arrays["header"] = np.array(str(arrays["header"]).replace('"read_N": 2', '"read_N": 1'))
    elif how == "no header":
        del arrays["header"]
    elif how == "foreign":
        arrays = {"weights": np.zeros(3)}
    elif how == "nan":
        arrays["parameters/mu/b"] = arrays["parameters/mu/b"] * np.nan
    elif how == "no moments":
        del arrays["m/mu/w"]
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "not a minidraw checkpoint, or damaged"),
        ("empty", "not a minidraw checkpoint, or damaged"),
        ("flipped", "not a minidraw checkpoint, or damaged"),
        ("pickled", "not a minidraw checkpoint, or damaged"),
        ("foreign", "not a minidraw checkpoint"),
        ("no header", "damaged header"),
        ("impossible configuration", "read_N is 1"),
        ("another configuration", r"mu/w is float32 \(6, 2\), but the configuration wants floats of shape \(6, 3\)"),
        ("nan", "mu/b holds NaN"),
        ("no moments", "m/mu/w is missing"),
    ],
)
def test_checkpoints_that_cannot_be_used(whole_run, how, message):
    damage(whole_run.checkpoint, how)
    with pytest.raises(BadInput, match=message) as caught:
        Run.resume(whole_run.folder)
    assert "\n" not in str(caught.value)


def test_the_bundled_form_of_a_model(whole_run, tmp_path):
    model = whole_run.trainer.model
    checkpoint.save_model(tmp_path / "checkpoint.npz", model, {"data": None})
    loaded = checkpoint.load(tmp_path / "checkpoint.npz")
    assert loaded.model.config == model.config and loaded.recipe is None
    for name, value in loaded.model.arrays().items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, model.arrays()[name], rtol=1e-3, atol=1e-6)
    with pytest.raises(BadInput, match="without its training state"):
        Run.resume(tmp_path)
