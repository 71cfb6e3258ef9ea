"""The bound and the importance-weighted estimate, where the truth is known."""

import numpy as np
import pytest

from minidraw.autodiff import no_grad
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.evaluation import evaluate, log_mean_exp
from minidraw.ops import bernoulli

pytestmark = pytest.mark.slow


def small_model(T=1):
    """Random weights; an encoder that is wider than the prior, so that the weights p/q have no long tail."""
    config = Config(T=T, z_size=1, enc_size=4, dec_size=4, A=3, B=2, read_N=None, write_N=None)
    rng = np.random.default_rng(5)
    parameters = {name: rng.standard_normal(shape) for name, shape in config.shapes.items()}
    parameters["sigma/w"] *= 0.1
    parameters["sigma/b"][...] = 0.4
    return Draw(config, parameters)


def log_p(model, x, points=161):
    """log p(x), by summing D(x | c_T) p(z) over a grid of all z_1 .. z_T (one dimension each)."""
    T = model.config.T
    axis = np.linspace(-7, 7, points)
    z = np.stack(np.meshgrid(*[axis] * T, indexing="ij")).reshape(T, -1, 1)
    with no_grad():
        *_, last = model.generate(z)
    log_prior = (-(z**2) / 2 - np.log(2 * np.pi) / 2).sum(axis=(0, 2)) + T * np.log(axis[1] - axis[0])
    log_joint = [log_prior - bernoulli.on_arrays(last.c.value, np.tile(image, (z.shape[1], 1)))[0] for image in x]
    return np.array([log_mean_exp(a) + np.log(len(a)) for a in log_joint])


X = np.random.default_rng(1).integers(0, 2, (8, 6)).astype(float)


@pytest.mark.parametrize("T", [1, 2])
def test_log_p_of_all_images_sums_to_one(T):
    """The yardstick itself: the probabilities of all 64 images of six pixels."""
    everything = np.array(list(np.ndindex(*[2] * 6)), float)
    assert np.exp(log_p(small_model(T), everything, 121)).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("T", [1, 2])
def test_the_importance_weighted_estimate_finds_log_p(T):
    model = small_model(T)
    truth = -log_p(model, X).mean()
    result = evaluate(model, X, samples=4000)
    assert result.importance_weighted == pytest.approx(truth, abs=0.02)
    assert result.bound > truth + 0.05  # the posterior of random weights is not exact: the bound has a gap


def test_it_does_not_get_worse_with_more_samples():
    model = small_model(2)
    x = np.tile(X, (50, 1))
    estimates = [evaluate(model, x, samples=K).importance_weighted for K in (2, 5, 20, 100)]
    assert evaluate(model, x, samples=2).bound > estimates[0]
    assert all(a > b for a, b in zip(estimates, estimates[1:], strict=False))


def test_a_decoder_that_ignores_z_has_a_known_likelihood():
    """Blank canvas: log p(x) = -6 ln 2 whatever the encoder does, and the bound is worse by its KL alone."""
    model = small_model(2)
    for name in ("write/w", "write/b"):
        model.parameters[name].value[...] = 0
    result = evaluate(model, X, samples=4000)
    assert result.L_x == pytest.approx(6 * np.log(2))
    assert result.importance_weighted == pytest.approx(6 * np.log(2), abs=0.04)
    assert result.bound == pytest.approx(6 * np.log(2) + result.L_z)


def test_the_parts_add_up_and_the_batch_size_only_changes_the_noise():
    model = small_model(3)
    x = np.tile(X, (100, 1))
    result = evaluate(model, x)
    assert result.bound == pytest.approx(result.L_x + result.L_z) and len(result.L_z_by_step) == 3
    assert sum(result.L_z_by_step) == pytest.approx(result.L_z)
    assert result.importance_weighted is None and result.images == 800
    assert result == evaluate(model, x)
    other = evaluate(model, x, batch_size=33)
    assert other.bound == pytest.approx(result.bound, abs=4 * result.standard_error) and other.bound != result.bound


def test_the_standard_error_is_that_of_the_mean():
    model = small_model(1)
    bounds = [evaluate(model, np.tile(X, (25, 1)), seed=s).bound for s in range(3)]
    with no_grad():
        noise = np.random.default_rng([0, 0]).standard_normal((1, 200, 1), dtype="f")
        L_x, L_z = (nats.value for nats in model.nats(np.tile(X, (25, 1)), noise))
    result = evaluate(model, np.tile(X, (25, 1)))
    assert result.standard_error == pytest.approx((L_x + L_z).std(ddof=1) / 200**0.5)
    assert np.ptp(bounds) < 6 * result.standard_error


def test_log_mean_exp_does_not_overflow():
    assert log_mean_exp(np.array([1000.0, 1000.0])) == 1000
    assert log_mean_exp(np.log(np.array([1.0, 3.0]))) == pytest.approx(np.log(2))
