"""The model: its parameters, its two halves, and the points that public DRAW code gets wrong."""

import numpy as np
import pytest

from minidraw.autodiff import Tensor
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.errors import BadInput
from minidraw.ops import bernoulli, filterbank, kl, read, write

BLOG = """read/w (256, 5)  read/b (5,)  encoder/w (562, 1024)  encoder/b (1024,)  mu/w (256, 10)  mu/b (10,)
sigma/w (256, 10)  sigma/b (10,)  decoder/w (266, 1024)  decoder/b (1024,)  writeW/w (256, 25)  writeW/b (25,)
write/w (256, 5)  write/b (5,)"""

SMALL = {"T": 3, "z_size": 2, "enc_size": 4, "dec_size": 3, "A": 5, "B": 6}


def test_the_blogs_fourteen_variables():
    assert "  ".join(BLOG.split("\n")) == "  ".join(f"{name} {shape}" for name, shape in Config().shapes.items())


def test_without_attention_there_are_no_windows():
    shapes = Config(read_N=None, write_N=None).shapes
    assert "read/w" not in shapes and "writeW/w" not in shapes
    assert shapes["encoder/w"] == (2 * 784 + 512, 1024) and shapes["write/w"] == (256, 784)


def test_a_learned_start_adds_five_vectors_at_the_end():
    assert list(Config(learned_start=True).shapes)[14:] == [
        "start/c",
        "start/h_enc",
        "start/cell_enc",
        "start/h_dec",
        "start/cell_dec",
    ]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"T": 0}, "T is 0"),
        ({"read_N": 0}, "read_N is 0"),
        ({"write_N": 1}, "at least 2 filters"),
        ({"A": -1}, "A is -1"),
        ({"T": 2.5}, "T is 2.5"),
        ({"channels": 2}, "channels is 2"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    with pytest.raises(BadInput, match=message):
        Config(**sizes)


def window_means(g_tilde, N=5, A=28):
    """The means of the filters, by centre of mass of very narrow ones."""
    p = np.array([[g_tilde, g_tilde, -6.0, 0.0, 0.0]])
    (F_x, _, _), _ = filterbank.on_arrays(p, N=N, A=3 * A, B=3 * A)
    return F_x[0] @ np.arange(3 * A)


def test_the_filters_of_a_centred_window_mirror_about_the_middle():
    """N = 5, A = 28, delta~ = 1 gives means 0, 6.75, 13.5, 20.25, 27."""
    p = np.array([[0, 0, 2.0, 0, 0]])
    (F_x, F_y, _), _ = filterbank.on_arrays(p, N=5, A=28, B=28)
    np.testing.assert_allclose(F_x, F_x[:, ::-1, ::-1], atol=1e-15)
    np.testing.assert_allclose(F_x, F_y)
    p[0, 2] = -4  # narrow: each filter sits on the pixels nearest to its mean
    (F_x, _, _), _ = filterbank.on_arrays(p, N=5, A=28, B=28)
    np.testing.assert_allclose(F_x[0].argmax(axis=1)[[0, 1, 3, 4]], [0, 7, 20, 27])
    np.testing.assert_allclose((F_x[0] @ np.arange(28))[2], 13.5)
    np.testing.assert_allclose(window_means(0), np.array([0, 0.25, 0.5, 0.75, 1]) * 83, atol=0.3)


@pytest.mark.parametrize(("g_tilde", "centre"), [(-1, -1), (0, 13.5), (1, 28)])
def test_where_the_centre_of_a_window_may_lie(g_tilde, centre):
    """g~ = -1 and +1 put the centre one pixel outside either edge."""
    from minidraw.ops.attention import window

    g, sigma2, delta, gamma = window(np.array([[g_tilde, g_tilde, 0.5, 0.25, 0.125]]), N=5, A=28, B=28)
    np.testing.assert_allclose(g, centre)
    np.testing.assert_allclose([sigma2[0], delta[0], gamma[0]], [np.exp(0.5), 27 / 4 * np.exp(0.25), np.exp(0.125)])


def test_the_filters_width_is_sigma_squared():
    """The window gives log sigma^2, and the exponent has its half."""
    p = np.array([[0, 0, np.log(4.0), np.log(0.1), 0]])
    (F_x, _, _), _ = filterbank.on_arrays(p, N=3, A=101, B=101)
    pixels = np.arange(101)
    mean = F_x[0, 1] @ pixels
    assert mean == pytest.approx(50)
    assert F_x[0, 1] @ (pixels - mean) ** 2 == pytest.approx(4.0, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filters_far_outside_the_image_are_finite_and_sum_to_one(dtype):
    """A softmax over the pixels, in every dtype."""
    p = np.array([[50, -50, -3, 1, 0], [3, 3, -8, -2, 0]], dtype)
    (F_x, F_y, gamma), back = filterbank.on_arrays(p, N=5, A=28, B=20)
    for F in (F_x, F_y):
        np.testing.assert_allclose(F.sum(axis=2), 1, rtol=1e-6)
    assert np.isfinite(back(F_x, F_y, gamma)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_writing_is_the_adjoint_of_reading(rng, channels):
    """gamma^2 <write w, x> = <w, read x> for one window."""
    (F_x, F_y, gamma), _ = filterbank.on_arrays(0.5 * rng.standard_normal((4, 5)), N=3, A=9, B=7)
    x, w = rng.standard_normal((4, channels * 63)), rng.standard_normal((4, channels * 9))
    stroke, glimpse = (
        write.on_arrays(w, F_x, F_y, gamma)[0],
        read.on_arrays(x, x, F_x, F_y, gamma)[0][:, : channels * 9],
    )
    np.testing.assert_allclose(gamma**2 * (stroke * x).sum(axis=1), (w * glimpse).sum(axis=1))


def test_every_channel_is_read_through_the_same_filters(rng):
    (F_x, F_y, gamma), _ = filterbank.on_arrays(rng.standard_normal((2, 5)), N=2, A=4, B=3)
    channels = [rng.standard_normal((2, 12)) for _ in range(3)]
    x, x_hat = np.concatenate(channels, axis=1), np.concatenate(channels[::-1], axis=1)
    together = read.on_arrays(x, x_hat, F_x, F_y, gamma)[0]
    apart = [read.on_arrays(c, c, F_x, F_y, gamma)[0][:, :4] for c in channels + channels[::-1]]
    np.testing.assert_allclose(together, np.concatenate(apart, axis=1))


def test_a_blank_canvas_costs_784_ln_2():
    x = np.random.default_rng(0).integers(0, 2, (3, 784)).astype(float)
    np.testing.assert_allclose(bernoulli.on_arrays(np.zeros((3, 784)), x)[0], 784 * np.log(2))


def test_bernoulli_stays_exact_at_huge_logits():
    """1000 nats for a wrong pixel at logit 1000, and a gradient of 1."""
    nats, back = bernoulli.on_arrays(np.array([[1000.0, -1000.0, 1000.0, -1000.0]], "f"), np.array([[0, 1, 1, 0]], "f"))
    assert nats == 2000
    np.testing.assert_allclose(back(np.ones(1, "f"))[0], [[1, -1, 0, 0]], rtol=0, atol=1e-30)


def test_kl_is_zero_at_the_prior_only(rng):
    assert kl.on_arrays(np.zeros((1, 10)), np.zeros((1, 10)))[0] == 0
    assert (kl.on_arrays(rng.standard_normal((5, 10)), rng.standard_normal((5, 10)))[0] > 0).all()


def test_kl_against_monte_carlo(rng):
    """The constant is -1/2 for each latent dimension of each step."""
    mu, log_sigma = np.full((1, 3), 0.7), np.full((1, 3), -0.5)
    noise = rng.standard_normal((400_000, 3))
    z = mu + np.exp(log_sigma) * noise
    log_ratio = (-(noise**2) / 2 - log_sigma + z**2 / 2).sum(axis=1)
    standard_error = log_ratio.std() / len(noise) ** 0.5
    assert abs(log_ratio.mean() - kl.on_arrays(mu, log_sigma)[0][0]) < 4 * standard_error


def model_and_inputs(**sizes):
    config = Config(**SMALL, **sizes)
    rng = np.random.default_rng(2)
    model = Draw(config, {name: 0.7 * rng.standard_normal(shape) for name, shape in config.shapes.items()})
    x = rng.integers(0, 2, (4, config.pixels)).astype(float)
    return model, x, rng.standard_normal((config.T, 4, config.z_size))


@pytest.mark.parametrize("sizes", [{}, {"read_N": None, "write_N": None}, {"channels": 3, "learned_start": True}])
def test_fresh_noise_at_every_step(sizes):
    """Every noise[t] matters, and only to what comes after it."""
    model, x, noise = model_and_inputs(**sizes)
    before = [g.c.value for g in model.infer(x, noise)]
    for t in range(3):
        changed = noise.copy()
        changed[t] += 1
        after = [g.c.value for g in model.infer(x, changed)]
        assert [np.array_equal(a, b) for a, b in zip(before, after, strict=True)] == [s < t for s in range(3)]


def test_generation_is_the_drawing_half_of_inference():
    """Fed the z that inference sampled, generation draws the same canvases; the encoder plays no part."""
    model, x, noise = model_and_inputs()
    seen = list(model.infer(x, noise))
    z = np.stack([g.z.value for g in seen])
    for name in ("read/w", "encoder/w", "mu/w", "sigma/w"):
        model.parameters[name] = Tensor(np.full(model.parameters[name].shape, np.nan))
    drawn = list(model.generate(z))
    for a, b in zip(seen, drawn, strict=True):
        np.testing.assert_array_equal(a.c.value, b.c.value)
        np.testing.assert_array_equal(a.write_window.value, b.write_window.value)


def test_the_canvas_adds_up_and_starts_blank_or_learned():
    model, x, noise = model_and_inputs(learned_start=True)
    start = model.parameters["start/c"].value
    canvases = [glimpse.c.value for glimpse in model.infer(x, noise)]
    model.parameters["start/c"] = Tensor(start * 0)
    blank = next(model.generate(np.zeros((1, 4, 2)))).c.value
    model.parameters["start/c"] = Tensor(start)
    moved = next(model.generate(np.zeros((1, 4, 2)))).c.value
    np.testing.assert_allclose(moved - blank, np.broadcast_to(start, blank.shape))
    model.parameters["writeW/w"].value[...] = model.parameters["writeW/b"].value[...] = 0  # an empty pen
    for canvas in (glimpse.c.value for glimpse in model.infer(x, noise)):
        np.testing.assert_allclose(canvas, np.broadcast_to(start, canvas.shape))
    assert not np.allclose(canvases[0], canvases[1])


def test_wrong_shapes_are_named():
    model, x, noise = model_and_inputs()
    for wrong_x, wrong_noise in ((x[:, :-1], noise), (x, noise[:0]), (x, noise[:, :1]), (x[0], noise)):
        with pytest.raises(ValueError, match="should be"):
            model.nats(wrong_x, wrong_noise)


@pytest.mark.parametrize("sizes", [{}, {"read_N": None, "write_N": None}])
def test_the_noise_says_how_many_steps_there_are(sizes):
    """All weights are shared over t: the first two canvases of five steps are those of two."""
    model, x, _ = model_and_inputs(**sizes)
    noise = np.random.default_rng(4).standard_normal((5, 4, model.config.z_size))
    two, five = list(model.infer(x, noise[:2])), list(model.infer(x, noise))
    assert (len(two), len(five)) == (2, 5)
    for short, long in zip(two, five, strict=False):
        np.testing.assert_array_equal(short.c.value, long.c.value)


def test_parameters_that_do_not_fit_are_named():
    config = Config(**SMALL)
    arrays = Draw.initial(config).arrays()
    for wrong, message in (
        ({name: array for name, array in arrays.items() if name != "mu/w"}, "parameter mu/w is missing"),
        (arrays | {"mu/w": np.zeros((5, 2))}, r"parameter mu/w is \(5, 2\), and the configuration wants \(4, 2\)"),
    ):
        with pytest.raises(BadInput, match=message):
            Draw(config, wrong)


def test_images_of_a_batch_do_not_mix():
    model, x, noise = model_and_inputs()
    together = [nats.value for nats in model.nats(x, noise)]
    alone = [nats.value for nats in model.nats(x[2:3], noise[:, 2:3])]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a[2], b[0], rtol=1e-12)


def test_one_seed_one_model():
    one, same, other = (Draw.initial(Config(**SMALL), seed) for seed in (3, 3, 4))
    assert np.array_equal(one.parameters["encoder/w"].value, same.parameters["encoder/w"].value)
    assert not np.array_equal(one.parameters["encoder/w"].value, other.parameters["encoder/w"].value)
    weights = Draw.initial(Config(), 0).parameters["encoder/w"].value
    assert weights.dtype == np.float32 and weights.std() == pytest.approx(562**-0.5, rel=0.01)


def test_drawings_are_pictures():
    model, x, _ = model_and_inputs(channels=3)
    seen, drawn = model.reconstruct(x), model.sample(7, seed=1)
    assert seen.means.shape == (3, 4, 6, 5, 3) and drawn.means.shape == (3, 7, 6, 5, 3)
    assert seen.read_windows.shape == seen.write_windows.shape == (3, 4, 5) and drawn.read_windows is None
    assert 0 <= drawn.means.min() and drawn.means.max() <= 1
    assert np.array_equal(drawn.means, model.sample(7, seed=1).means)
    assert not np.array_equal(drawn.means, model.sample(7, seed=2).means)


def test_colour_pictures_put_the_channels_last():
    config = Config(A=2, B=2, channels=3)
    picture = config.as_images(np.arange(12))
    assert picture.shape == (2, 2, 3) and picture[0, 1].tolist() == [1, 5, 9]
