"""Adam and the clip."""

import numpy as np
import pytest

from minidraw import adam
from minidraw.adam import Adam, clip_factor, global_norm


def test_the_first_step_is_the_learning_rate_times_the_sign(rng):
    p, g = rng.standard_normal(5), rng.standard_normal(5) * [1e-3, 1, 10, 1e3, 1]
    before = p.copy()
    Adam([p]).update([g], 0.1)
    np.testing.assert_allclose(p, before - 0.1 * np.sign(g), rtol=0, atol=1e-4)


def test_algorithm_1_written_out(rng):
    """Kingma & Ba, Algorithm 1, with numbers; eps stands outside the root."""
    p = rng.standard_normal(3)
    want, m, v = p.copy(), 0, 0
    adam = Adam([p], eps=1e-2)  # large, so that its place shows
    for t in range(1, 6):
        g = rng.standard_normal(3)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        want = want - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-2)
        adam.update([g], 0.05)
    np.testing.assert_allclose(p, want, rtol=1e-13)


def test_blocks_change_nothing(rng, monkeypatch):
    arrays = [rng.standard_normal((7, 11)), rng.standard_normal(5)]
    gradients = [rng.standard_normal(array.shape) for array in arrays]
    found = []
    for block in (4, 2**62):
        monkeypatch.setattr(adam, "BLOCK", block)
        state = Adam([array.copy() for array in arrays])
        for _ in range(3):
            state.update(gradients, 0.1)
        found.append([a.tobytes() for a in (*state.parameters, *state.m, *state.v)])
    assert found[0] == found[1] and len(adam._blocks(arrays[:1])) == 1
    monkeypatch.setattr(adam, "BLOCK", 4)
    assert len(adam._blocks(arrays[:1])) == 20


def test_the_norm_is_that_of_all_gradients_as_one_vector():
    assert global_norm([np.array([3.0, 0.0]), np.array([[4.0]])]) == 5


def test_the_clip_acts_on_large_gradients_alone():
    assert clip_factor(np.float64(5.0), 1.0) == pytest.approx(0.2)
    assert clip_factor(np.float64(0.5), 5.0) == 1


def test_an_infinite_gradient_shows_in_the_norm():
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(global_norm([np.array([np.inf, 1.0])]))
