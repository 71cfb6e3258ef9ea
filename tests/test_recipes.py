"""The comparison of ways to train `paper`, and a run that begins with the weights of another: chapter 18."""

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial" / "runs"))

import further
import numpy as np
import pytest
import recipes

import minidraw
from minidraw.checkpoint import load_run
from minidraw.draw import Draw
from minidraw.images import Images
from minidraw.training import best_workers


@pytest.fixture
def images():
    x = np.random.default_rng(0).integers(0, 2, (60, 30)).astype(np.uint8)
    return Images(x[:40], x[40:50], x[50:], A=6, B=5)


@pytest.fixture
def small(monkeypatch):
    """The preset with few units and glimpses, small batches, and two of the choices."""
    config = minidraw.Config(T=4, z_size=2, enc_size=6, dec_size=6, A=6, B=5, read_N=2, write_N=2)
    recipe = minidraw.Recipe(batch_size=10, warm_up=0, growth=((0.5, 1), (0.75, 2)))
    monkeypatch.setattr(recipes, "CONFIG", config)
    monkeypatch.setattr(recipes, "PRESET", recipe)
    monkeypatch.setattr(recipes, "CHOICES", {"as the preset": {}, "no growth": {"growth": ()}})
    return config, recipe


def test_equal_time_is_the_time_of_all_stages(small, images):
    _, recipe = small
    known = {(1, 10): 0.1, (2, 10): 0.2, (4, 10): 0.4}  # seconds a step: on average 0.2, (0.05 + 0.05 + 0.1)
    assert recipes.steps_in(30, recipe, images, known) == 150
    assert recipes.steps_in(30, replace(recipe, growth=()), images, known) == 50  # 75, in whole rows of 50
    assert recipes.steps_in(1, recipe, images, known) == 50
    assert 0 < recipes.seconds_a_step(4, 5, images, known) < 10 and (4, 5) in known


def test_each_choice_becomes_a_row(small, images, monkeypatch, tmp_path, capsys):
    config, recipe = small
    path = tmp_path / "recipes.json"
    monkeypatch.setattr(recipes, "steps_in", lambda *about: 3)
    recipes.compare(7, path, images)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["command"].endswith("--seconds 7") and list(found["choices"]) == ["as the preset", "no growth"]
    row = found["choices"]["no growth"]
    assert row["recipe"]["growth"] == [] and row["recipe"]["steps"] == row["recipe"]["horizon"] == 3

    # the same by hand: the model at the end, and the average of the weights, one thousandth of the way in each step
    trainer = minidraw.Trainer(Draw.initial(config), images, replace(recipe, growth=(), steps=3, horizon=3))
    average = {name: array.copy() for name, array in trainer.model.arrays().items()}
    for _ in trainer:
        for name, array in trainer.model.arrays().items():
            average[name] = 0.999 * average[name] + 0.001 * array
    assert len(row["nats"]) == len(row["nats_averaged"]) == len(images.validation)
    bound = minidraw.evaluate(trainer.model, images.validation).bound
    assert np.mean(row["nats"]) == pytest.approx(bound, abs=0.005)  # nats are rounded to hundredths
    averaged = Draw(config, {name: array.astype(np.float32) for name, array in average.items()})
    bound = minidraw.evaluate(averaged, images.validation).bound
    assert np.mean(row["nats_averaged"]) == pytest.approx(bound, abs=0.005)
    assert row["nats_averaged"] != row["nats"]

    # what is there stays, and only what is missing is done again
    found["choices"]["as the preset"]["nats"] = [1.5]
    del found["choices"]["no growth"]
    path.write_text(json.dumps(found), encoding="utf-8")
    capsys.readouterr()
    recipes.compare(7, path, images)
    again = json.loads(path.read_text(encoding="utf-8"))["choices"]
    assert again["as the preset"]["nats"] == [1.5] and again["no growth"]["nats"] == row["nats"]
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["no growth"]
    with pytest.raises(minidraw.BadInput, match="another --seconds"):
        recipes.compare(8, path, images)


def test_the_choices_change_the_preset_as_they_say():
    for name, change in recipes.CHOICES.items():
        recipe = replace(recipes.PRESET, **change)
        assert (recipe == recipes.PRESET) == (name == "as the preset")


def test_a_run_begins_with_the_weights_of_another(tmp_path, capsys):
    folder = tmp_path / "further"
    assert further.main(["paper", str(folder), "--steps", "1", "--workers", "3"]) == 0
    assert capsys.readouterr().out == f"minidraw train --resume {folder}\n"
    begun, paper = load_run(folder), minidraw.load("paper")
    assert (
        begun.step == 0
        and begun.recipe.workers == 3
        and begun.recipe.T_at(1, begun.model.config.T) == paper.config.T == 64
    )
    for name, array in paper.arrays().items():
        np.testing.assert_array_equal(begun.model.arrays()[name], array)
        assert not begun.adam["m"][name].any() and not begun.adam["v"][name].any()
    assert further.main(["paper", str(folder)]) == 1
    assert capsys.readouterr().err.startswith(f"further.py: {folder} exists already")
    for bad in ([str(tmp_path / "none"), str(tmp_path / "x")], ["paper", str(tmp_path / "x"), "--workers", "101"]):
        assert further.main(bad) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1 and not (tmp_path / "x").exists()
    assert further.main(["paper", str(tmp_path / "x")]) == 0
    assert load_run(tmp_path / "x").recipe.workers == best_workers(100)
