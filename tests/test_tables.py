"""The measurements behind chapter 18: each is what it says."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial" / "runs"))

import numpy as np
import pytest
import tables

import minidraw
from minidraw import checkpoint
from minidraw.images import Images


def test_a_run_is_measured(tmp_path, monkeypatch, capsys):
    x = np.random.default_rng(0).integers(0, 2, (60, 30)).astype(np.uint8)
    images = Images(x[:30], x[30:40], x[40:], A=6, B=5)
    config = minidraw.Config(T=3, z_size=2, enc_size=6, dec_size=6, A=6, B=5, read_N=2, write_N=2)
    recipe = minidraw.Recipe(steps=4, horizon=4, batch_size=10, warm_up=0, growth=((0.5, 1),))
    trainer = minidraw.Trainer(minidraw.Draw.initial(config), images, recipe)
    rows = [{"step": m.step, "L_x": m.L_x, "L_z": m.L_z} for m in trainer]
    run = tmp_path / "run"
    run.mkdir()
    checkpoint.save(run / "checkpoint.npz", trainer, {"data": None, "checksum": ""})
    rows = [rows[0], {"step": 1, "L_x": 0.0, "L_z": 0.0}, *rows[1:], {"step": 4, "validation": 20.123}]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, value in {"KNOWN": 20, "SAMPLES": 3, "WEIGHTED": 5, "GLIMPSES": (1, 3), "SOME": 10, "EVERY": 2}.items():
        monkeypatch.setattr(tables, name, value)
    tables.measure(run, "tiny", folder=tmp_path, images=images)

    found = json.loads((tmp_path / "tiny.json").read_text())
    assert found["trained"]["steps"] == 4 and found["trained"]["recipe"]["growth"] == [[0.5, 1]]
    for split, x in {"test": images.test, "train": images.train[:20]}.items():
        assert found["bounds"][split]["bound"] == pytest.approx(minidraw.evaluate(trainer.model, x).bound)
    weighted = minidraw.evaluate(trainer.model, images.test[:5], samples=3)
    assert found["importance_weighted"]["nats"] == pytest.approx(weighted.importance_weighted)
    assert found["importance_weighted"]["bound"] == pytest.approx(weighted.bound)
    assert found["glimpses"]["T"] == [1, 3]
    with_three = minidraw.evaluate(trainer.model, images.validation)
    assert found["glimpses"]["L_z"][1] == pytest.approx(with_three.L_z)
    # one step of three: the nats of its latents are those of the first step, and the canvas has had one stroke
    assert found["glimpses"]["L_z"][0] == pytest.approx(first_step(trainer.model, images.validation), rel=1e-5)
    # the second row of step 1 counts: the run was taken up again from there
    pairs = (0.0, rows[2]["L_x"]), (rows[3]["L_x"], rows[4]["L_x"])
    assert found["curve"]["L_x"] == [round(sum(pair) / 2, 2) for pair in pairs]
    assert found["curve"]["step"] == [2, 4]
    assert found["curve"]["validation"] == {"step": [4], "bound": [20.12]}
    bounds = np.load(tmp_path / "tiny-bounds.npy")
    assert len(bounds) == 20 and bounds.mean() == pytest.approx(found["bounds"]["test"]["bound"], rel=1e-5)
    assert capsys.readouterr().out.startswith("tiny: ")

    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, [rows[0], *rows[3:]])))  # without step 2
    assert tables.curve(run / "metrics.jsonl")["step"] == [4]


def first_step(model, images):
    """The mean nats of the first step's latents: they depend on no noise."""
    glimpse = next(model.infer(model.asarray(images), model.asarray(np.zeros((1, len(images), model.config.z_size)))))
    return float(minidraw.ops.kl(glimpse.mu, glimpse.log_sigma).value.mean())


def test_a_run_that_is_not_there_takes_one_line(tmp_path, capsys):
    assert tables.main([str(tmp_path / "none"), "x"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"tables.py: {tmp_path / 'none'}: no such folder; `minidraw train` makes one"
    ]
