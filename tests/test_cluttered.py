"""Cluttered MNIST: the scenes are what they say, the network's gradients are right, a run can be stopped and go on."""

import json
import sys
from copy import copy
from pathlib import Path

import numpy as np
import pytest

from minidraw import gradcheck
from minidraw.autodiff import backward
from minidraw.errors import BadInput
from minidraw.ops import cross_entropy
from minidraw.training import Recipe
from support import standin

sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial"))
import cluttered

TINY = cluttered.Config(T=2, units=6, N=3)
RECIPE = Recipe(batch_size=4, learning_rate=0.01)


@pytest.fixture(scope="module")
def splits():
    return {name: cluttered.Split(name) for name in cluttered.SPLITS}


# The scenes


def squares(seed, count=60):
    """Scenes of "digits" that are evenly bright, each in a grey of its own: 1 to `count`, and which each shows."""
    digits = np.arange(1, count + 1, dtype=np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
    which = np.arange(count)
    return cluttered.scenes(digits, which, np.random.default_rng(seed)), which


def test_a_scene_has_one_whole_digit_and_eight_pieces_of_others():
    areas = []
    for scene, own in zip(*squares(0), strict=True):
        found = {grey: np.argwhere(scene == grey) for grey in np.unique(scene[scene > 0])}
        areas.append(sum(len(places) for places in found.values()))
        size = {grey: tuple(np.ptp(places, axis=0) + 1) for grey, places in found.items()}
        assert max(size.pop(own + 1)) == 28 and len(size) <= 8
        for grey, (height, width) in size.items():
            seen_twice = len(found[grey]) > 64
            assert seen_twice or max(height, width) <= 8
    assert max(areas) == 28 * 28 + 8 * 8 * 8  # and some scene is seen without any overlap
    assert min(areas) >= 28 * 28


def test_the_brighter_pixel_stays():
    """So that a bright digit lies wholly above dark clutter, though that comes later."""
    digits = np.array([2, 1], np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
    found = cluttered.scenes(digits, np.zeros(100, int), np.random.default_rng(0))
    assert ((found == 2).sum(axis=(1, 2)) == 28 * 28).all()


def test_digits_and_pieces_lie_everywhere():
    """Each can touch all four edges of the scene, and none is ever cut."""
    digits, which = np.ones((2, 28, 28), np.uint8), np.zeros(1000, int)
    digits[1] = 2
    found = cluttered.scenes(digits, which, np.random.default_rng(0))
    for grey in (1, 2):
        seen = (found == grey).any(axis=0)
        assert seen[0].any() and seen[-1].any() and seen[:, 0].any() and seen[:, -1].any()
    lone = cluttered.scenes(np.stack([digits[0], 0 * digits[0]]), which, np.random.default_rng(0))
    assert (lone.sum(axis=(1, 2)) == 28 * 28).all()


def test_pieces_are_cut_at_every_place():
    """Of a digit with one bright pixel in a corner that is the last of its 28 x 28, one piece in 441 shows it."""
    digits = np.zeros((2, 28, 28), np.uint8)
    digits[1, -1, -1] = 1
    found = cluttered.scenes(digits, np.zeros(1500, int), np.random.default_rng(0))
    assert 0.5 < found.sum() / (1500 * 8 / 441) < 1.5


def test_scenes_follow_from_seed_and_step(splits):
    train = splits["train"]
    (x, labels), again = train.batch(0, 7, 20), train.batch(0, 7, 20)
    np.testing.assert_array_equal(x, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert x.shape == (20, 10_000) and x.dtype == labels.dtype == np.uint8 and set(np.unique(x)) == {0, 1}
    assert all((x != other).any() for other in (train.batch(0, 8, 20)[0], train.batch(1, 7, 20)[0]))


def test_a_scene_shows_the_digit_of_its_label(splits):
    """Every test digit once, in order: it is somewhere in its scene, with nothing missing."""
    test = splits["test"]
    x, labels = test.block(99)
    np.testing.assert_array_equal(labels, test.labels[-100:])
    for scene, digit in zip(x.reshape(-1, 100, 100)[:3], test.digits[-100:], strict=False):
        places = np.lib.stride_tricks.sliding_window_view(scene, (28, 28))
        assert (places >= digit).all(axis=(2, 3)).any()


def test_splits_are_apart(splits):
    seen = [{digit.tobytes() for digit in split.digits} for split in splits.values()]
    assert [len(split.digits) for split in splits.values()] == [50_000, 10_000, 10_000]
    twins = [len(a & b) for a, b in zip(seen, seen[1:] + seen[:1], strict=True)]
    assert max(twins) < 5  # a digit that is nearly nothing may be in MNIST twice
    assert (splits["test"].block(0)[0] != splits["validation"].block(0)[0]).any()


# The network


@pytest.mark.parametrize("N", [3, None], ids=["attention", "whole"])
def test_gradients_of_the_whole_network(N):
    config = cluttered.Config(T=3, units=2, N=N, side=5, classes=3)
    rng = np.random.default_rng(0)
    parameters = [0.7 * rng.standard_normal(shape) for shape in config.shapes.values()]
    x, labels = rng.integers(0, 2, (2, 25)).astype(float), np.array([2, 0])

    def nats(x, *parameters):
        model = cluttered.Classifier(config, dict(zip(config.shapes, parameters, strict=True)))
        loss = cross_entropy(model.logits(x), labels).mean()
        return loss.value, lambda dy: (None, *(dy * g for g in backward(loss, model.parameters.values())))

    rows = gradcheck.check(nats, [x, *parameters], [None, *config.shapes], rng, "classifier")
    assert len(rows) == len(config.shapes)
    for row in rows:
        assert row.passed, row


def test_the_first_window_spans_the_scene_without_gaps():
    """Of a lone pixel anywhere, the first glimpse sees about as much as of any other."""
    model = cluttered.Classifier.initial(cluttered.ATTENTION, dtype="float64")
    lone = np.ravel_multi_index(np.mgrid[10:90:19, 10:90:19].reshape(2, -1), (100, 100))
    pixels = np.zeros((len(lone), 10_000))
    pixels[np.arange(len(lone)), lone] = 1
    _, window = next(model.glimpses(pixels))
    r, _ = model._read(pixels, np.zeros((len(pixels), 256)))
    seen = r.value.sum(axis=1)
    assert window.shape == (len(pixels), 5) and seen.min() > 0.7 * seen.max() > 0


def test_four_and_eight_glimpses_differ_in_nothing_else_and_the_narrow_one_costs_no_more():
    four, eight, narrow = (cluttered.NETWORKS[name] for name in ("attention-4", "attention-8", "narrow-8"))
    assert four.shapes == eight.shapes and (four.T, eight.T) == (4, 8)
    assert 0.98 * eight.multiplications < narrow.multiplications <= eight.multiplications


@pytest.mark.parametrize("name", cluttered.NETWORKS)
def test_multiplications_are_those_of_the_matrix_products(name, monkeypatch):
    """Counted at every product of a forward pass of one scene."""
    count = 0

    class Counted(np.ndarray):
        def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
            nonlocal count
            plain = [i.view(np.ndarray) if isinstance(i, Counted) else i for i in inputs]
            if out:
                kwargs["out"] = tuple(array.view(np.ndarray) for array in out)
            y = getattr(ufunc, method)(*plain, **kwargs)
            count += y.size * plain[0].shape[-1] if ufunc is np.matmul else 0
            return y.view(Counted)

    config = cluttered.NETWORKS[name]
    arrays = cluttered.Classifier.initial(config).arrays()
    model = cluttered.Classifier(config, {key: array.view(Counted) for key, array in arrays.items()})
    model.logits(np.ones((1, 10_000), np.float32))
    moments = config.T * 2 * config.N * config.side * 3 if config.N else 0  # of the filters, within filterbank
    assert count - moments == config.multiplications


# The run


@pytest.fixture
def tiny(splits):
    def tiny(xp=np, **budget):
        model = cluttered.Classifier.initial(TINY, xp=xp)
        return cluttered.Training(model, splits["train"], RECIPE, cluttered.Budget(**budget))

    return tiny


def test_a_step_on_a_device_neither_mixes_nor_waits(tiny):
    device, host = tiny(standin.library, steps=3), tiny(steps=3)
    device.step(0.3)
    host.step(0.3)
    standin.traffic.update(uploads=0, downloads=0)
    device.step(0.6)
    host.step(0.6)
    assert standin.traffic == {"uploads": 2, "downloads": 0}  # the scenes and their labels
    for got, want in zip(device.adam.parameters, host.adam.parameters, strict=True):
        np.testing.assert_allclose(got.get(), want, rtol=1e-4, atol=1e-5)
    assert device._row(0.6)["nats"] == pytest.approx(host._row(0.6)["nats"], rel=1e-4)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cluttered, "EVERY", 2)
    whole = tiny(steps=5)
    rows = list(whole.rows())
    first = tiny(steps=5)
    next(first.rows())
    first.save(tmp_path / "checkpoint.npz")
    second = tiny(steps=5)
    second.restore(tmp_path / "checkpoint.npz")
    assert second.steps_done == 2
    list(second.rows())
    assert second.steps_done == whole.steps_done == 5
    for kind in ("parameters", "m", "v"):
        for a, b in zip(getattr(whole.adam, kind), getattr(second.adam, kind), strict=True):
            np.testing.assert_array_equal(a, b)
    timeless = [[{**row, "seconds": 0} for row in curve] for curve in (rows, second.curve)]
    assert timeless[0] == timeless[1] and [row["step"] for row in rows] == [2, 4]
    with pytest.raises(BadInput, match="other settings"):
        tiny(steps=6).restore(tmp_path / "checkpoint.npz")


def test_a_budget_of_seconds_is_kept(tiny, monkeypatch):
    """A clock that each step moves on by one second: eight seconds are eight steps, and the rate falls with them."""
    now = 0.0
    monkeypatch.setattr(cluttered.time, "monotonic", lambda: now)
    training, shares = tiny(seconds=8.0), []

    def step(share):
        nonlocal now
        now += 1
        shares.append(share)
        training.adam.t += 1

    training.step = step
    list(training.rows())
    assert shares == [k / 8 for k in range(9)] and training.spent == 9


def test_the_command(splits, tmp_path, monkeypatch, capsys):
    """A few steps of a small network: weights that can be used again, and results that say what they are."""
    monkeypatch.setattr(cluttered, "NETWORKS", {"tiny": TINY})
    monkeypatch.setattr(cluttered, "VALIDATION", 100)
    few = splits | {"test": copy(splits["test"])}
    few["test"].labels = few["test"].labels[:200]
    monkeypatch.setattr(cluttered, "Split", few.get)
    command = ["tiny", "--steps", "2", "--batch-size", "3", "--out", str(tmp_path)]
    assert cluttered.main(command) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.npz", "tiny.json"}
    found = json.loads((tmp_path / "tiny.json").read_text())
    assert found["command"].startswith("python tutorial/cluttered.py tiny --steps 2 --batch-size 3")
    assert found["steps"] == 2 and found["device"] == "cpu" and np.shape(found["shown"]["windows"]) == (10, TINY.T, 5)
    assert found["test_standard_error"] == pytest.approx((found["test"] * (1 - found["test"]) / 200) ** 0.5)
    model = cluttered.trained(tmp_path / "tiny.npz")
    logits = model.logits(model.scenes(few["test"].block(0)[0])).value
    assert 0 <= found["test"] <= 1 and logits.dtype == np.float32 and np.isfinite(logits).all()
    assert "test error" in capsys.readouterr().out
    assert cluttered.main(command) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--steps", "0"], ["--steps", "1", "--seconds", "1"], ["--seconds", "nan"]])
def test_a_wrong_command_line(options, capsys):
    with pytest.raises(SystemExit) as exit:
        cluttered.main(["attention-8", *options])
    assert exit.value.code == 2


def test_a_wrong_number_is_one_clear_line(capsys):
    assert cluttered.main(["attention-8", "--steps", "1", "--learning-rate", "-1"]) == 1
    assert capsys.readouterr().err == "cluttered: learning_rate is -1.0: it must be positive (--learning-rate)\n"
