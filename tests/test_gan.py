"""The GAN of chapter 20: its losses' gradients, its networks, its run, its command."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minidraw import gradcheck
from minidraw.autodiff import Tensor, backward
from minidraw.images import mnist, mnist_labels
from minidraw.ops.elementary import logistic

sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial"))
import descent
import gan

TINY = {"GENERATOR": [3, 5, 196], "CRITIC": [196, 4, 1], "CLASSIFIER": [196, 4, 10]}


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Networks of a few units, and a classifier of that size where `trained` looks for it."""
    for name, widths in TINY.items():
        monkeypatch.setattr(gan, name, widths)
    monkeypatch.setattr(gan, "RUNS", tmp_path / "runs")
    gan.RUNS.mkdir()
    descent.save_weights(gan.RUNS / "classifier.npz", {}, gan.initial(gan.CLASSIFIER, 0))
    return replace(gan.RECIPE, steps=3, horizon=3, batch_size=4, warm_up=0)


# Gradients


def test_leaky_relu(rng):
    a = rng.standard_normal((3, 4))
    assert (gan.leaky_relu.on_arrays(a)[0] == np.where(a > 0, a, 0.2 * a)).all()
    (row,) = gradcheck.check(gan.leaky_relu.on_arrays, [a], ["a"], rng, "leaky_relu")
    assert row.passed, row
    assert gan.leaky_relu.on_arrays(a.astype(np.float32))[0].dtype == np.float32


@pytest.mark.parametrize(
    "loss, value",
    [
        (gan.minimax_loss, lambda D: np.log(1 - D)),
        (gan.generator_loss, lambda D: -np.log(D)),
        (lambda fake: gan.critic_loss(Tensor(np.zeros((5, 1))), fake), lambda D: np.log(2) - np.log(1 - D)),
        (lambda real: gan.critic_loss(real, Tensor(np.zeros((5, 1)))), lambda D: np.log(2) - np.log(D)),
    ],
    ids=["minimax", "generator", "critic, of samples", "critic, of data"],
)
def test_the_losses_and_their_gradients(loss, value, rng):
    """Each is the mean of what it is called, in terms of D = sigmoid(a)."""
    a = rng.standard_normal((5, 1))
    assert np.isclose(loss(Tensor(a)).value, value(logistic(a)).mean())

    def op(a):
        tensor = Tensor(a)
        total = loss(tensor)
        return total.value, lambda dy: dy * backward(total, [tensor])[0]

    (row,) = gradcheck.check(op, [a], ["a"], rng, "loss")
    assert row.passed, row


@pytest.mark.parametrize("loss", [gan.generator_loss, gan.minimax_loss])
def test_the_gradient_of_the_generator_through_the_critic(loss, rng):
    """Of every weight of both, as one function of them."""
    G, C = (
        gan.Maps({name: a.astype(float) for name, a in gan.initial(widths, 0).arrays().items()})
        for widths in ([2, 3, 4], [4, 3, 1])
    )
    names, z = [*G.parameters], rng.standard_normal((3, 2))

    def op(*arrays):
        generator = gan.Maps(dict(zip(names, arrays, strict=True)))
        value = loss(gan.network(C, gan.generate(generator, z)))
        return value.value, lambda dy: tuple(dy * g for g in backward(value, generator.parameters.values()))

    for row in gradcheck.check(op, [*G.arrays().values()], names, rng, "generator"):
        assert row.passed, row


# Images


def test_half_the_size_is_the_mean_of_four():
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, :2, :2], image[0, 27, 4] = 1, 1
    half = gan.halved(image.reshape(1, 784)).reshape(14, 14)
    assert half[0, 0] == 1 and half[13, 2] == 0.25 and half.sum() == 1.25 and half.dtype == np.float32


def test_the_committed_classifier_knows_digits():
    """Some test digits, and each with its own probability."""
    digits, p = gan.digits_of(gan.trained("classifier"), gan.halved(mnist().test[:500]))
    assert (digits == mnist_labels("test")[:500]).mean() > 0.9
    assert p.shape == (500,) and p.min() > 0.1 and p.max() <= 1


def test_the_committed_counts_are_those_of_the_committed_generator():
    """But for its weights' rounding to float16, and another machine's."""
    found = gan.census(gan.trained("gan"), gan.trained("classifier"))
    wanted = json.loads((gan.RUNS / "gan.json").read_text(encoding="utf-8"))["digits"]
    assert found.sum() == 1000 and np.abs(found - wanted).max() <= 10


# The run


def results(recipe, folder):
    """What a run finds, but for its seconds; and its weights."""
    found, _ = gan.train_gan(recipe, folder / "gan", np)
    return {key: value for key, value in found.items() if key != "seconds"}, descent.load(folder / "gan.npz")[1]


def compare(a, b):
    assert a[0] == b[0]
    for name, array in a[1].items():
        np.testing.assert_array_equal(b[1][name], array)


def test_a_run_is_the_same_twice_and_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(descent, "EVERY", 1)
    once = results(tiny, tmp_path / "once")
    assert once[0]["curve"]["step"] == [1, 2, 3] and sum(once[0]["digits"]) == 1000
    compare(once, results(tiny, tmp_path / "twice"))

    def interrupted(images, recipe, number):
        if number == 3:
            raise KeyboardInterrupt
        return descent.rows_of(images, recipe, number)

    with monkeypatch.context() as stop, pytest.raises(KeyboardInterrupt):
        stop.setattr(descent, "SAVE_EVERY", -1)  # after every step
        stop.setattr(gan, "rows_of", interrupted)
        results(tiny, tmp_path / "stopped")
    assert descent.load(tmp_path / "stopped" / "gan.checkpoint.npz")[0]["done"] == 2
    compare(once, results(tiny, tmp_path / "stopped"))


def test_each_gradient_changes_one_network(tiny, tmp_path, monkeypatch):
    """The critic's step leaves the generator as it is, and the generator's the critic."""
    changed = []
    step = gan.Descent.step

    def watched(self, loss):
        before = {id(maps): {k: a.copy() for k, a in maps.arrays().items()} for maps in networks}
        norm = step(self, loss)
        changed.append([any((a != before[id(maps)][k]).any() for k, a in maps.arrays().items()) for maps in networks])
        return norm

    networks = []
    initial = gan.initial
    monkeypatch.setattr(gan, "initial", lambda *args, **kw: networks.append(initial(*args, **kw)) or networks[-1])
    monkeypatch.setattr(gan.Descent, "step", watched)
    results(tiny, tmp_path)
    assert changed == [[False, True], [True, False]] * 3  # generator, critic; the critic moves first


# The command


def test_the_command(tiny, tmp_path, monkeypatch, capsys):
    def command(*words):
        return gan.command("gan", ("gan", "classifier"), gan.train, tiny, [*words, "--out", str(tmp_path / "out")])

    assert command("classifier", "--steps", "2") == 0 and command("gan", "--steps", "2", "--seed", "1") == 0
    out = capsys.readouterr().out
    assert "test error" in out and "1,000 samples" in out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"classifier.json", "classifier.npz", "gan-seed-1.json", "gan-seed-1.npz"}
    found = json.loads((tmp_path / "out" / "gan-seed-1.json").read_text(encoding="utf-8"))
    assert found["command"].startswith("python tutorial/gan.py gan --steps 2 --seed 1") and found["steps"] == 2
    assert descent.load(tmp_path / "out" / "classifier.npz")[1]["2/w"].shape == (4, 10)
    assert command("gan", "--seed", "1") == 1
    assert capsys.readouterr().err.startswith("gan: ")
    (gan.RUNS / "classifier.npz").unlink()
    assert command("gan") == 1
    error = capsys.readouterr().err
    assert error.startswith("gan: ") and "classifier.npz" in error and error.count("\n") == 1
    with pytest.raises(SystemExit) as wrong:
        command("gan", "--steps", "0")
    assert wrong.value.code == 2
