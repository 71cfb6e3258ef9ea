"""The family of chapter 21: DRAW with bits is what it says, and its gradient is DARN's; the command and its table."""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minidraw.autodiff import Tensor, backward, no_grad
from minidraw.errors import BadInput
from minidraw.ops.elementary import mean

sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial"))
import darn
import descent
import family

TINY = family.BitConfig(T=2, read_N=2, write_N=3, z_size=3, enc_size=4, dec_size=5, A=4, B=3, learned_start=True)


@pytest.fixture
def model():
    """With a decoder's state that is not zero at the start, so that the prior has something to look at."""
    model = family.DrawWithBits.initial(TINY, seed=3, dtype="float64")
    model.arrays()["start/h_dec"][:] = np.random.default_rng(4).standard_normal(TINY.dec_size)
    return model


@pytest.fixture
def x(rng):
    return (rng.random((4, TINY.pixels)) < 0.5).astype(float)


def test_the_prior_of_each_step_sums_to_one(model, rng):
    every = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    h_dec = np.repeat(rng.standard_normal((1, 5)), 8, axis=0)
    nats = darn.nats_of_bits(model.prior(every, h_dec), every).value
    assert np.exp(-nats).sum() == pytest.approx(1, rel=1e-12)


def test_a_bit_that_is_drawn_has_the_probability_that_the_prior_gives_it(model, rng):
    """`generate` draws with `ancestral`, `infer` judges with `prior`: the same logits."""
    u, h_dec = rng.random((50, 3)), rng.standard_normal((50, 5))
    z, p = darn.ancestral(model.arrays()["among/w"], model._affine("prior", h_dec).value, u)
    np.testing.assert_allclose(1 / (1 + np.exp(-model.prior(z, h_dec).value)), p, rtol=1e-12)
    assert set(np.unique(z)) == {0, 1}


def test_the_nats_are_those_of_a_plain_loop(model, x, rng):
    """Written anew from the equations for one step, with the model's own reading and writing."""
    u = rng.random((1, 4, 3))
    with no_grad():
        L_x, L_z = (nats.value for nats in model.nats(x, u))
        ((c, _),) = model.infer(x, u)
    p = model.arrays()
    h_dec = np.repeat(p["start/h_dec"][None], 4, axis=0)
    x_hat = x - 0.5
    with no_grad():
        r, _ = model._read(x, Tensor(x_hat), Tensor(h_dec))
    gates = np.concatenate([r.value, h_dec, np.zeros((4, 4))], axis=1) @ p["encoder/w"] + p["encoder/b"]
    i, f, o, g = np.split(gates, 4, axis=1)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    h_enc = sigmoid(o) * np.tanh(sigmoid(i) * np.tanh(g))
    a = h_enc @ p["mu/w"] + p["mu/b"]
    z = (u[0] < sigmoid(a)).astype(float)
    logits = h_dec @ p["prior/w"] + p["prior/b"] + z @ np.triu(p["among/w"], 1)
    cost = -np.log(np.where(z == 1, sigmoid(logits), sigmoid(-logits))).sum(axis=1)
    entropy = -(sigmoid(a) * np.log(sigmoid(a)) + sigmoid(-a) * np.log(sigmoid(-a))).sum(axis=1)
    np.testing.assert_allclose(L_z, cost - entropy, rtol=1e-10)
    pixels = sigmoid(c.value)
    np.testing.assert_allclose(L_x, -np.log(np.where(x == 1, pixels, 1 - pixels)).sum(axis=1), rtol=1e-10)


def test_the_gradients_of_what_follows_the_bits_are_those_of_differences(model, x, rng):
    """In a single step, what comes after the bits moves none of them, and the loss smoothly."""
    u = rng.random((1, 4, 3))
    maps = "prior", "among", "decoder", "write", "writeW"
    after = [f"{name}/{kind}" for name in maps for kind in "wb" if f"{name}/{kind}" != "among/b"]
    loss = lambda: sum(map(mean, model.nats(x, u)))  # noqa: E731
    gradients = backward(loss(), [model.parameters[name] for name in after])
    for name, gradient in zip(after, gradients, strict=True):
        array, gradient = model.arrays()[name], np.asarray(gradient)
        for at in [tuple(rng.integers(size) for size in array.shape) for _ in range(3)]:
            with no_grad():
                kept, slopes = array[at], []
                for sign in (1, -1):
                    array[at] = kept + sign * 1e-5
                    slopes.append(sign * loss().value)
                array[at] = kept
            assert sum(slopes) / 2e-5 == pytest.approx(gradient[at], rel=1e-6, abs=1e-9), (name, at)


def test_the_gradient_of_the_bits_is_darns(model, x, rng, monkeypatch):
    """(19.13) times the slope of the cost by z, and that of the entropy, summed over the batch by mu's bias."""
    u = rng.random((1, 4, 3))
    kept = {}

    def held(a, noise):
        kept["a"], kept["z"] = a.value, Tensor(darn.bits(a, noise).value)
        return kept["z"]

    bias = model.parameters["mu/b"]
    (found,) = backward(sum(map(mean, model.nats(x, u))), [bias])
    with monkeypatch.context() as patch:
        patch.setattr(darn, "darn_bits", held)
        loss = sum(map(mean, model.nats(x, u)))
    (dz,) = backward(loss, [kept["z"]])
    s = 1 / (1 + np.exp(-kept["a"]))
    of_entropy = kept["a"] * s * (1 - s) / len(x)  # minus (19.8)
    want = (np.abs(kept["z"].value - s) / 2 * dz + of_entropy).sum(axis=0)
    np.testing.assert_allclose(found, want, rtol=1e-10)


def test_no_map_of_sigma_is_left(model):
    assert not any(name.startswith("sigma") for name in model.parameters)
    assert model.arrays()["among/w"].shape == (3, 3) and model.arrays()["prior/w"].shape == (5, 3)
    with pytest.raises(BadInput):
        next(model.infer(np.zeros((2, 7)), np.zeros((1, 2, 3))))


def test_drawings_follow_their_noise(model, rng):
    noise = rng.random((2, 6, 3))
    with no_grad():
        once, twice = ([glimpse.c.value for glimpse in model.generate(noise)] for _ in range(2))
        other = [glimpse.c.value for glimpse in model.generate(rng.random((2, 6, 3)))]
    assert len(once) == 2 and once[0].shape == (6, TINY.pixels)
    np.testing.assert_array_equal(once[1], twice[1])
    assert (once[1] != other[1]).any()
    means = family.drawings(model, 6)
    assert means.shape == (6, 3, 4) and 0 <= means.min() < 0.5 < means.max() <= 1


# The command


@pytest.fixture
def tiny(monkeypatch):
    """A model of 28 x 28 pixels and few units under each name, and few images to judge it by."""
    sizes = {"T": 2, "z_size": 3, "enc_size": 4, "dec_size": 4}
    small = {name: (Model, replace(config, **sizes)) for name, (Model, config) in family.MODELS.items()}
    monkeypatch.setattr(family, "MODELS", small)
    images = family.mnist()
    few = replace(images, validation=images.validation[:20], test=images.test[:20])
    monkeypatch.setattr(family, "mnist", lambda: few)
    return replace(family.RECIPE, batch_size=4)


def test_a_training_leaves_its_results_and_its_drawings(tiny, tmp_path, capsys):
    for name in family.MODELS:
        words = [name, "--steps", "2", "--out", str(tmp_path)]
        assert family.command("family", family.MODELS, family.train, tiny, words) == 0
        found = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        assert found["steps"] == 2 and found["test"]["images"] == 20 and len(found["curve"]["L_z"]) == 1
        assert descent.load(tmp_path / f"{name}.npz")[1]["drawings"].shape == (family.COUNT, 28, 28)
        assert f"{name}: test " in capsys.readouterr().out


def test_times_are_those_of_the_recipe(tmp_path, capsys):
    words = ["times", "--steps", "3", "--out", str(tmp_path)]
    assert family.command("family", (*family.MODELS, "times"), family.train, family.RECIPE, words) == 1
    assert "leave these out (--steps, --seed)" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_help_names_all_that_it_does(capsys):
    with pytest.raises(SystemExit):
        family.command("family", (*family.MODELS, "times"), family.train, family.RECIPE, ["--help"])
    assert "python tutorial/family.py table" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_run(tiny, tmp_path):
    runs = [family.train("draw-bits", replace(tiny, steps=2), tmp_path / f"{k}", np)[0] for k in "ab"]
    assert {**runs[0], "seconds": 0} == {**runs[1], "seconds": 0}


def test_the_committed_drawings_and_results_belong_together():
    rows = family.table().splitlines()
    assert len(rows) == 1 + len(family.NAMES)
    for name, row in zip(family.NAMES, rows[1:], strict=True):
        found = json.loads((family.RUNS / f"{name}.json").read_text(encoding="utf-8"))
        wanted = f"{found['test']['nats']:.1f}" if "test" in found else "none"
        assert row.startswith(family.NAMES[name]) and wanted in row
        if name in family.MODELS:
            assert found["parameters"] == family.MODELS[name][1].number_of_parameters
            assert found["test"]["nats"] == pytest.approx(found["test"]["L_x"] + found["test"]["L_z"], abs=2e-3)
            drawings = descent.load(family.RUNS / f"{name}.npz")[1]["drawings"]
            assert drawings.shape == (family.COUNT, 28, 28) and 10 < drawings.mean() < 60
