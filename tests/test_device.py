"""On a device of its own: nothing is mixed, nothing waited for; with a stand-in, and with CuPy where there is a GPU."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from minidraw import checkpoint, cuda_graph
from minidraw.adam import Adam, clip_factor, global_norm
from minidraw.backend import array_module, to_host
from minidraw.config import Config
from minidraw.cuda_graph import CudaGraph, Products
from minidraw.draw import Draw
from minidraw.errors import BadInput
from minidraw.images import load_images
from minidraw.objective import nats_and_gradients
from minidraw.training import Recipe, Trainer
from minidraw.workers import InProcess
from support import standin

SMALL = {"T": 2, "z_size": 2, "enc_size": 6, "dec_size": 5, "A": 5, "B": 6}
CONFIGS = {
    "attention": Config(read_N=2, write_N=3, **SMALL),
    "no attention": Config(read_N=None, write_N=None, **SMALL),
    "read only, learned start": Config(read_N=3, write_N=None, learned_start=True, **SMALL),
    "write only, colour": Config(read_N=None, write_N=2, channels=3, **SMALL),
}
RECIPE = Recipe(steps=3, horizon=3, batch_size=4, warm_up=1)


@pytest.fixture(autouse=True)
def the_stand_in_has_a_cublas(monkeypatch):
    load = cuda_graph.load_cublas
    monkeypatch.setattr(cuda_graph, "load_cublas", lambda xp: standin.Cublas() if xp is standin.library else load(xp))


@pytest.fixture
def cupy():
    try:
        from minidraw.backend import library

        return library("gpu")
    except BadInput as reason:
        pytest.skip(f"no GPU to test on: {reason}")


def inputs(config, xp, dtype="float32"):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (4, config.pixels)).astype(dtype)
    noise = rng.standard_normal((config.T, 4, config.z_size)).astype(dtype)
    return xp.asarray(x), xp.asarray(noise)


def test_the_stand_in_refuses_what_a_gpu_would():
    device, host = standin.library.asarray(np.ones(3)), np.ones(3)
    for mix in (
        lambda: device + host,
        lambda: host * device,
        lambda: device * np.float64(2),
        lambda: standin.library.concatenate([device, host]),
        lambda: device[host > 0],
        lambda: device.__setitem__(0, host[0]),
        lambda: host.__setitem__(slice(None), device),
        lambda: np.asarray(device),
        lambda: np.concatenate([device]),
        lambda: float(device.sum()),
        lambda: bool(device[0] > 0),
    ):
        with pytest.raises(standin.HostDeviceMix):
            mix()
    assert array_module(device) is standin.library
    assert (2 * device + 1).get().tolist() == [3, 3, 3]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_step_neither_mixes_nor_waits_nor_uploads(config):
    """Forward, backward, clip: the same numbers as on the host, and no traffic once the constants are up."""
    xp = standin.library
    x, noise = inputs(config, xp)
    model = Draw.initial(config, xp=xp)
    nats_and_gradients(model, x, noise, 4)  # uploads what is kept from step to step
    standin.traffic.update(uploads=0, downloads=0)
    L_x, L_z, gradients = nats_and_gradients(model, x, noise, 4)
    norm = global_norm(gradients)
    factor = clip_factor(norm, 0.1)
    assert standin.traffic == {"uploads": 0, "downloads": 0}
    want = nats_and_gradients(Draw.initial(config), *inputs(config, np), 4)
    want_norm = global_norm(want[2])
    found = (L_x, L_z, *gradients, norm, factor)
    for got, wanted in zip(found, (*want[:2], *want[2], want_norm, clip_factor(want_norm, 0.1)), strict=True):
        np.testing.assert_allclose(got.get(), wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


def test_training_uploads_a_batch_and_fetches_once_a_step(small_images):
    config, images = CONFIGS["attention"], load_images(small_images)
    device = Trainer(Draw.initial(config, xp=standin.library), images, RECIPE)
    first = next(device)
    standin.traffic.update(uploads=0, downloads=0)
    rest = list(device)
    assert standin.traffic == {"uploads": len(rest), "downloads": len(rest)}  # x; L_x, L_z and the norm in one
    host = Trainer(Draw.initial(config), images, RECIPE)
    host.batch = lambda step: [array.get() for array in device.batch(step)]  # for noise is made where it is used
    np.testing.assert_allclose([first, *rest], list(host), rtol=1e-5)
    for name, array in host.model.arrays().items():
        np.testing.assert_allclose(device.model.arrays()[name].get(), array, rtol=1e-4, atol=1e-6, err_msg=name)


def test_checkpoints_move_between_devices(small_images, tmp_path):
    config, images = CONFIGS["attention"], load_images(small_images)
    trainer = Trainer(Draw.initial(config, xp=standin.library), images, RECIPE)
    next(trainer)
    checkpoint.save(tmp_path / "checkpoint.npz", trainer, {})
    for xp in (np, standin.library):
        saved = checkpoint.load(tmp_path / "checkpoint.npz", xp)
        arrays = [*saved.model.arrays().values(), *saved.adam["m"].values(), *saved.adam["v"].values()]
        assert {array_module(array) for array in arrays} == {xp}


def test_noise_made_on_the_device_is_that_of_its_step(small_images):
    def noise(seed, step):
        recipe = replace(RECIPE, seed=seed)
        trainer = Trainer(Draw.initial(CONFIGS["attention"], xp=standin.library), load_images(small_images), recipe)
        return trainer.batch(step)[1].get()

    np.testing.assert_array_equal(noise(0, 3), noise(0, 3))
    assert all((noise(0, 3) != other).any() for other in (noise(0, 4), noise(1, 3)))


def test_the_stand_in_refuses_what_a_kernel_cannot_do():
    a, b = (standin.library.asarray(np.ones(n)) for n in (3, 1))
    for function in (
        lambda a, b: a[:2],
        lambda a, b: a * a.shape[0],
        lambda a, b: a * a.sum(),
        lambda a, b: (a, b),  # of two shapes
    ):
        with pytest.raises(TypeError):
            standin.library.fuse(function)(a, b)
    with pytest.raises(TypeError, match="two numbers"):
        standin.library.fuse(lambda a, beta: a * (1 - beta))(a, 0.9)
    assert standin.library.fuse(lambda a, b: (a + b) * 2)(a, b).get().tolist() == [4, 4, 4]


GROWING = replace(RECIPE, steps=6, horizon=6, growth=((0.5, 3),), learning_rate=0.01)


def trained(config, xp, images, kind):
    """A Trainer after three steps with T = 3 and three with all glimpses, and its Metrics; `kind` does the work."""
    trainer = Trainer(Draw.initial(config, xp=xp), images, GROWING)
    trainer._executor = kind(trainer.model, trainer.adam, trainer.recipe)
    return trainer, list(trainer)


def check_replays(config, xp, images):
    """Recorded or not, training is the same."""
    config = replace(config, T=9)  # more than the eight arrays that CuPy joins in a recording
    recorded, metrics = trained(config, xp, images, CudaGraph)
    assert recorded.executor.recording is not None
    one_by_one, wanted = trained(config, xp, images, InProcess)
    assert len({m.L_x for m in metrics}) == len(metrics) == 6  # each replay saw its own images
    np.testing.assert_allclose(metrics, wanted, rtol=1e-4)
    for name, array in one_by_one.model.arrays().items():
        found, want = to_host(recorded.model.arrays()[name]), to_host(array)  # Adam makes more of small roundings
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-2 * GROWING.learning_rate, err_msg=name)


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def config_and_images(request, small_images, tmp_path):
    """Every configuration, with images of its kind."""
    images = load_images(small_images)
    if request.param.channels == 3:
        np.save(tmp_path / "colour.npy", np.random.default_rng(0).integers(0, 256, (60, 6, 5, 3), np.uint8))
        images = load_images(tmp_path / "colour.npy")
    return request.param, images


@pytest.mark.filterwarnings("error")
def test_a_recorded_step_is_the_step(config_and_images):
    check_replays(config_and_images[0], standin.library, config_and_images[1])


@pytest.mark.gpu
@pytest.mark.filterwarnings("error")
def test_a_recorded_step_is_the_step_on_a_gpu(cupy, config_and_images):
    check_replays(config_and_images[0], cupy, config_and_images[1])


def layouts(matrices):
    """Stacks of matrices, in every way that they may lie in memory, with what they are called."""
    count, rows, columns = matrices.shape
    wide = np.zeros((count, 2, rows + 1, columns + 2), np.float32)
    wide[:, 1, 1:, 1:-1] = matrices
    yield "as it is", matrices, lambda a: a
    yield "transposed", matrices.swapaxes(1, 2).copy(), lambda a: a.swapaxes(1, 2)
    yield "a part", wide, lambda a: a[:, 1, 1:, 1:-1]
    yield "a part, transposed", wide.swapaxes(2, 3).copy(), lambda a: a[:, 1].swapaxes(1, 2)[:, 1:, 1:-1]
    yield "every second", np.repeat(np.repeat(matrices, 2, axis=1), 2, axis=2), lambda a: a[:, ::2, ::2]
    yield "backwards", matrices[:, ::-1, ::-1].copy(), lambda a: a[:, ::-1, ::-1]


def check_products(xp, stream):
    """`Products.product` is NumPy's `@`, for matrices of every size and however they lie, and stacks that broadcast."""
    rng = np.random.default_rng(0)
    product = Products(xp, stream).product

    def check(a, b, want, name):
        found = to_host(product(a, b))
        assert found.dtype == want.dtype and found.shape == want.shape, name
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5, err_msg=str(name))

    for m, k, n in itertools.product((1, 3), (1, 4), (1, 5)):
        A, B = (rng.standard_normal(shape).astype(np.float32) for shape in ((6, m, k), (6, k, n)))
        for (name_a, a, view_a), (name_b, b, view_b) in itertools.product(layouts(A), layouts(B)):
            a, b = view_a(xp.asarray(a)), view_b(xp.asarray(b))
            check(a, b, A @ B, (m, k, n, name_a, name_b))
            check(a[2], b[2], A[2] @ B[2], (m, k, n, name_a, name_b, "one"))
    A, B = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 2, 5), (4, 3, 5, 6)))
    check(xp.asarray(A)[:, None], xp.asarray(B), A[:, None] @ B, "as the attention reads colours")
    check(xp.asarray(A)[0], xp.asarray(B)[0], A[0] @ B[0], "one for all")
    check(xp.asarray(A).ravel(), xp.asarray(A).ravel(), np.asarray(A.ravel() @ A.ravel()), "vectors")
    for wrong in (xp.asarray(B), xp.asarray(np.swapaxes(A, 1, 2).astype(np.float64))):
        with pytest.raises(ValueError):
            product(xp.asarray(A), wrong)


def test_products_past_cupy():
    with standin.library.cuda.Stream(non_blocking=True) as stream:
        check_products(standin.library, stream)


@pytest.mark.gpu
def test_products_past_cupy_on_a_gpu(cupy):
    with cupy.cuda.Stream(non_blocking=True) as stream:
        check_products(cupy, stream)


def test_the_stand_in_refuses_what_cupy_cannot_record():
    xp, a = standin.library, standin.library.asarray(np.ones((2, 2)))
    for refused in (
        lambda: a @ a,
        lambda: xp.matmul(a, a),
        lambda: xp.concatenate([a] * 9),
        lambda: xp.asarray([1.0]),
        lambda: a.get(),
        lambda: xp.cuda.Device().synchronize(),
    ):
        with xp.cuda.Stream(non_blocking=True) as stream:
            stream.begin_capture()
            try:
                with pytest.raises(standin.NotRecordable):
                    refused()
            finally:
                stream.end_capture()


def test_what_cannot_be_recorded_is_trained_all_the_same(small_images, monkeypatch):
    """With one warning, for every T; and the operators are CuPy's own again."""
    xp, images, config = standin.library, load_images(small_images), CONFIGS["attention"]
    wanted = trained(replace(config, T=4), xp, images, InProcess)[1]
    record = standin.Stream.end_capture

    def fails(self):
        record(self)
        raise RuntimeError("a card that cannot")

    monkeypatch.setattr(standin.Stream, "end_capture", fails)
    with pytest.warns(UserWarning, match="without a CUDA graph.*a card that cannot") as warned:
        assert trained(replace(config, T=4), xp, images, CudaGraph)[1] == wanted
    assert len(warned) == 2
    assert "__matmul__" not in vars(xp.ndarray) and "by_eights" not in repr(xp.concatenate)


def test_a_recording_that_gives_other_numbers_is_not_believed(small_images, monkeypatch):
    xp, images, config = standin.library, load_images(small_images), CONFIGS["attention"]
    monkeypatch.setattr(standin.Graph, "launch", lambda self: None)
    with pytest.warns(UserWarning, match="without a CUDA graph.*nan"):
        trained(replace(config, T=4), xp, images, CudaGraph)


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-4)])
def test_cupy_agrees_with_numpy(cupy, config, dtype, limit):
    found = []
    for xp in (np, cupy):
        model = Draw.initial(config, dtype=dtype, xp=xp)
        L_x, L_z, gradients = nats_and_gradients(model, *inputs(config, xp, dtype), 4)
        norm, adam = global_norm(gradients), Adam(model.arrays().values())
        factor = clip_factor(norm, 0.1)
        adam.update([factor * gradient for gradient in gradients], 0.1)
        found.append([to_host(xp.asarray(a)) for a in (L_x, L_z, norm, *gradients, *adam.parameters, *adam.v)])
    for want, got in zip(*found, strict=True):
        assert np.abs(got - want).max() <= limit * np.abs(want).max()


@pytest.mark.gpu
def test_one_seed_one_result_on_a_gpu(cupy, small_images):
    images = load_images(small_images)
    runs = [list(Trainer(Draw.initial(CONFIGS["attention"], xp=cupy), images, RECIPE)) for _ in range(2)]
    assert runs[0] == runs[1]
