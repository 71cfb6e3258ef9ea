"""DARN: nothing looks ahead; what estimates a bit's gradient is right where it says so; its probabilities are true."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from minidraw.autodiff import backward
from minidraw.ops import bernoulli, masked_affine
from minidraw.ops.elementary import exp, mean
from minidraw.ops.elementary import sum as sum_of
from minidraw.training import Recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial"))
import darn
import descent

H, D = 4, 6


@pytest.fixture
def small():
    rng = np.random.default_rng(0)
    return darn.Darn(descent.Maps({name: rng.standard_normal(shape) for name, shape in darn.Darn.shapes(H, D).items()}))


def every(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def test_nothing_looks_ahead(small, rng):
    x, W, b = rng.standard_normal((1, D)), rng.standard_normal((D, D)), np.zeros(D)
    y, _ = masked_affine.on_arrays(x, W, b, small.earlier[D])
    for i in range(D):
        moved, _ = masked_affine.on_arrays(x + np.eye(D)[i], W, b, small.earlier[D])
        np.testing.assert_array_equal((moved != y)[0], np.arange(D) > i)


def exact_gradient(model, image):
    """Of the bound, for the encoder's bias: the average over all h, none of them drawn."""
    h = every(H)
    x = np.repeat(image[None], len(h), axis=0)
    a = model.encoder(x)
    L_x, cost = model.nats_of(x, h)
    bound = sum_of(exp(-bernoulli(a, h)) * (L_x + cost)) - mean(darn.entropy(a))
    return backward(bound, [model.maps.parameters["encoder/b"]])[0]


LOSSES = {
    "score function": lambda model, x, u: model.score_function_loss(x, u),
    "baseline": lambda model, x, u: model.score_function_loss(x, u, baseline=True),
    "straight-through": lambda model, x, u: sum(map(mean, model.nats(x, u, darn.straight_through_bits))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_an_estimator_is_right_on_average_or_is_known_not_to_be(small, name):
    image, noise = np.array([0.0, 1, 1, 0, 1, 0]), np.random.default_rng(2)
    x, bias = np.repeat(image[None], 50, axis=0), small.maps.parameters["encoder/b"]
    found = np.array([backward(LOSSES[name](small, x, noise.random((50, H))), [bias])[0] for _ in range(200)])
    off = (found.mean(axis=0) - exact_gradient(small, image)) / (found.std(axis=0, ddof=1) / len(found) ** 0.5)
    assert np.abs(off).max() < 4.5 if name != "straight-through" else np.abs(off).max() > 10, off


@pytest.mark.parametrize(("power", "right"), [(1, True), (2, True), (3, False)])
def test_darns_estimator_is_exact_up_to_quadratic_costs(power, right):
    for s in (0.1, 0.5, 0.75):
        a, average = np.array([[np.log(s / (1 - s))]]), 0.0
        for u, probability in ((s / 2, s), ((1 + s) / 2, 1 - s)):
            h, back = darn.darn_bits.on_arrays(a, np.array([[u]]))
            average += probability * back(power * (h - 0.2) ** (power - 1))[0].item()
        exact = s * (1 - s) * (0.8**power - (-0.2) ** power)
        assert (abs(average - exact) < 1e-12) is right


def test_the_probabilities_of_all_images_sum_to_one(small):
    """And those that `draw` reports are those of the pixels it drew."""
    x, total = every(D), 0.0
    for h in every(H):
        L_x, cost = small.nats_of(x, np.repeat(h[None], len(x), axis=0))
        total += np.exp(-(L_x + cost).value).sum()
    assert total == pytest.approx(1, rel=1e-12)
    h, u = every(H), np.random.default_rng(3).random((2**H, D))
    image, p = small.draw(h, u)
    np.testing.assert_array_equal(image, u < p)
    want = -np.log(np.where(image == 1, p, 1 - p)).sum(axis=1)
    np.testing.assert_allclose(small.nats_of(image, h)[0].value, want, rtol=1e-12)


def test_ancestral_sampling_draws_every_outcome_as_often_as_the_model_says():
    """All eight outcomes of three units: how often each came up, beside its probability."""
    rng, count = np.random.default_rng(5), 40_000
    W, b, h = rng.standard_normal((3, 3)), rng.standard_normal(3), every(3)
    logits, _ = masked_affine.on_arrays(h, W, b, np.triu(np.ones((3, 3)), 1))
    p = np.exp(-bernoulli.on_arrays(logits, h)[0])
    assert p.sum() == pytest.approx(1, rel=1e-12)
    drawn, _ = darn.ancestral(W, b, rng.random((count, 3)))
    share = (drawn[:, None] == h).all(axis=2).mean(axis=0)
    assert (np.abs(share - p) < 4.5 * (p * (1 - p) / count) ** 0.5).all(), (share, p)


def test_sampling_follows_the_model(small):
    """Of the first pixel: the share of ones among drawings, beside the sum over all bits."""
    rng = np.random.default_rng(4)
    image, _ = small.sample(rng.random((20_000, H)), rng.random((20_000, D)))
    h = every(H)
    first = np.zeros((2**H, D)) + np.eye(D)[0]
    arrays = small.maps.arrays()
    p_first = 1 / (1 + np.exp(-(h @ arrays["pixels/w"] + arrays["pixels/b"])[:, 0]))
    p_h = np.exp(-small.nats_of(first, h)[1].value)
    want = (p_h * p_first).sum()
    assert abs(image[:, 0].mean() - want) < 4.5 * (want * (1 - want) / 20_000) ** 0.5


def test_importance_weights_average_to_the_probability(small):
    images = every(D)[[5, 44]]
    _, _, log_w = darn.evaluate(small, images, samples=4000)
    for k, image in enumerate(images):
        L_x, cost = small.nats_of(np.repeat(image[None], 2**H, axis=0), every(H))
        want, w = np.exp(-(L_x + cost).value).sum(), np.exp(log_w[:, k])
        assert abs(w.mean() - want) < 4.5 * w.std(ddof=1) / len(w) ** 0.5


def test_the_bound_lies_above(small):
    image = every(D)[37]
    L_x, L_z, _ = darn.evaluate(small, np.repeat(image[None], 2000, axis=0))[:, 0]
    exact = -np.log(np.exp(-sum(small.nats_of(np.repeat(image[None], 2**H, axis=0), every(H))).value).sum())
    bound, error = (L_x + L_z).mean(), (L_x + L_z).std(ddof=1) / 2000**0.5
    assert bound > exact - 4.5 * error


# The training that chapters share


def run(path, steps, until=None):
    """`descend` on a small problem, which may be cut off after `until` steps."""
    maps = descent.Maps.initial(descent.with_biases({"map": (3, 2)}), seed=0)
    recipe = Recipe(steps=steps, horizon=steps, learning_rate=0.1, warm_up=0, batch_size=4)
    way = descent.Descent(maps, recipe)

    def step(number):
        if number == until:
            raise KeyboardInterrupt
        x = np.random.default_rng(number).standard_normal((4, 3)).astype(np.float32)
        y = maps("map", x)
        loss = mean(y * y)
        return {"norm": way.step(loss), "loss": loss.value}

    return maps, *descent.descend(path, {"one": way}, step, recipe, {})[:1]


def test_a_training_that_was_cut_off_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(descent, "SAVE_EVERY", -1)  # at every row of the curve
    monkeypatch.setattr(descent, "EVERY", 10)
    whole, curve = run(tmp_path / "whole", 30)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 30, until=25)
    resumed, again = run(tmp_path / "cut", 30)
    assert again == curve and len(curve["step"]) == 3
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(resumed.arrays()[name], array)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(descent, "SAVE_EVERY", -1)
    run(tmp_path / "run", 10)
    with pytest.raises(ValueError, match="other settings"):
        run(tmp_path / "run", 11)


def test_errors_of_the_command_are_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no-latents.json").write_text("{}")
    arguments = ["no-latents", "--steps", "1", "--out", "."]
    assert descent.command("darn", darn.UNITS, darn.train, darn.RECIPE, arguments) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "is there already" in err
    with pytest.raises(SystemExit) as wrong:
        descent.command("darn", darn.UNITS, darn.train, darn.RECIPE, ["no-latents", "--steps", "0"])
    assert wrong.value.code == 2
