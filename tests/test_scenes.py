"""The studies that follow the tutorial: their images are what they say, and each writes what it promises."""

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tutorial" / "runs"))

import numpy as np
import pytest
import scenes
import studies
from PIL import Image

import minidraw
from minidraw import checkpoint
from minidraw.autodiff import Tensor
from minidraw.evaluation import evaluate
from minidraw.images import Images, load_images
from minidraw.objective import nats_and_gradients


def run(capsys, *arguments):
    """The exit status of scenes.py, and the lines it leaves on standard error."""
    try:
        status = scenes.main([str(argument) for argument in arguments])
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr().err.splitlines()


# Two digits on a page


def test_two_digits_follow_from_their_seed():
    first, again, other = (scenes.two_digits(seed, (20, 5, 5)) for seed in (3, 3, 4))
    assert first.checksum == again.checksum != other.checksum
    assert first.shape == (60, 60, 1) and not first.grey
    assert [pages.shape for pages in (first.train, first.validation, first.test)] == [(20, 3600), (5, 3600), (5, 3600)]


def test_each_split_is_made_of_its_own_digits(monkeypatch):
    digits = np.zeros((3, 784), np.uint8)
    digits[0, :1] = digits[1, :10] = digits[2, :100] = 1
    monkeypatch.setattr(scenes, "mnist", lambda: Images(digits[:1], digits[1:2], digits[2:], A=28, B=28))
    pages = scenes.two_digits(0, (50, 50, 50))
    for split, ink in ((pages.train, 1), (pages.validation, 10), (pages.test, 100)):
        assert split.sum(axis=1).max() == 2 * ink  # two of its own, apart
        assert split.sum(axis=1).min() >= ink  # or one upon the other


def test_digits_are_anywhere_on_the_page_and_clipped():
    corner = np.zeros((1, 784), np.uint8)
    corner[0, 0] = 1
    pages = scenes.pages_of(corner, 8_000, np.random.default_rng(0))
    assert pages.dtype == np.uint8 and pages.max() == 1
    assert (pages.sum(axis=1) == 1).any()  # where both are at one place
    hit = pages.reshape(-1, 60, 60).sum(axis=0)
    assert (hit[:33, :33] > 0).all() and hit.sum() == hit[:33, :33].sum()  # a digit is whole everywhere
    chance = pages.sum() / 33**2
    assert abs(hit[:33, :33] - chance).max() < 6 * chance**0.5  # and no place is better than another


# House numbers


def test_house_numbers_follow_from_their_seed():
    images = scenes.house_numbers(12, seed=1)
    assert images.shape == (12, 32, 32, 3) and images.dtype == np.uint8
    assert (images[:4] == scenes.house_numbers(4, seed=1)).all()
    assert (images != scenes.house_numbers(12, seed=2)).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("font", scenes.FONTS)
def test_a_number_is_whole_within_its_picture(font):
    for seed, number in enumerate((1, 47, 888)):
        shape = scenes.shape_of(number, font, np.random.default_rng(seed))
        assert shape.max() == 1 and 0.01 < shape.mean() < 0.6
        edge = np.concatenate([shape[[0, -1]].ravel(), shape[:, [0, -1]].ravel()])
        assert edge.max() == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_number_is_the_way_up_that_it_is_read(seed):
    """Upright and not mirrored: a 7 has its bar above, a 4 its stem on the right."""
    rng = np.random.default_rng(seed)
    seven, four = (scenes.shape_of(number, "DejaVuSans", rng) for number in (7, 4))
    rows, columns = seven.sum(axis=1), four.sum(axis=0)
    assert rows.argmax() < np.flatnonzero(rows).mean() and columns.argmax() > np.flatnonzero(columns).mean()


def test_figure_and_ground_can_be_told_apart(rng):
    for _ in range(100):
        ground, figure = scenes.colours(rng)
        assert abs((ground - figure) @ [0.299, 0.587, 0.114]) >= 0.35


def test_the_file_of_house_numbers_is_one_to_train_on(tmp_path, capsys):
    path = tmp_path / "houses.npy"
    assert run(capsys, "houses", path, "--count", 20, "--seed", 5) == (0, [])
    images = load_images(path, binary=False)
    assert images.shape == (32, 32, 3) and len(images.train) == 18 and images.grey
    config = minidraw.Config(A=32, B=32, channels=3)
    assert (np.rint(255 * config.as_images(images.train)) == scenes.house_numbers(18, seed=5)).all()
    assert run(capsys, "houses", path)[0] == 1  # it is there already


# Pictures of one's own


def test_a_folder_of_pictures_becomes_a_file(tmp_path, capsys):
    folder, path = tmp_path / "pictures", tmp_path / "pictures.npy"
    assert run(capsys, "houses", folder, "--count", 11)[0] == 0
    (folder / "notes.txt").write_text("no picture")
    assert run(capsys, "pack", folder, path) == (0, [])
    packed, houses = np.load(path), scenes.house_numbers(11)
    order = [next(k for k, house in enumerate(houses) if (house == image).all()) for image in packed]
    assert sorted(order) == list(range(11)) != order  # each of them, in another order


def test_the_middle_of_a_picture_is_taken(tmp_path, capsys):
    wide = np.zeros((8, 16, 4), np.uint8)
    wide[:, 4:12] = 200, 100, 50, 255
    wide[:4, 4:12, 3] = 0  # its upper half is transparent
    grey = np.full((20, 10), 77, np.uint8)
    Image.fromarray(wide).save(tmp_path / "1.png")
    Image.fromarray(grey).save(tmp_path / "2.PNG")
    assert run(capsys, "pack", tmp_path, tmp_path / "two.npy", "--size", 8) == (0, [])
    images = sorted(np.load(tmp_path / "two.npy").tolist())
    assert images[0] == [[[77] * 3] * 8] * 8
    assert images[1] == [[[255] * 3] * 8] * 4 + [[[200, 100, 50]] * 8] * 4


@pytest.mark.parametrize("content", [b"rubbish", b"\x89PNG\r\n\x1a\n rubbish", "cut", "sixteen"])
def test_rubbish_gets_one_line(tmp_path, capsys, content):
    path = tmp_path / "a.png"
    if content == "sixteen":
        Image.fromarray(np.full((4, 4), 30_000, np.uint16)).save(path)
    elif content == "cut":
        Image.fromarray(scenes.house_numbers(1)[0]).save(path)
        path.write_bytes(path.read_bytes()[:1000])
    else:
        path.write_bytes(content)
    status, lines = run(capsys, "pack", tmp_path, tmp_path / "out.npy")
    assert status == 1 and len(lines) == 1 and "a.png" in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_wrong_commands_are_told_so(tmp_path, capsys):
    for arguments in (["pack", tmp_path, "x.npy"], ["pack", tmp_path / "none", "x.npy"], ["pack", tmp_path, "x.txt"]):
        status, lines = run(capsys, *arguments)
        assert status == 1 and len(lines) == 1 and lines[0].startswith("scenes.py: ")
    for arguments in ([], ["houses"], ["houses", "x.npy", "--count", 0], ["pack", tmp_path, "x.npy", "--size", "big"]):
        assert run(capsys, *arguments)[0] == 2


# Studies


def tiny(name):
    """A study of the same kind that takes no time."""
    study = studies.STUDIES[name]
    config = replace(study.config, T=2, z_size=3, enc_size=6, dec_size=6)
    shape = (60, config.pixels)
    x = np.random.default_rng(0).integers(0, 2, shape).astype(np.float32 if name == "houses" else np.uint8)
    images = Images(x[:30], x[30:40], x[40:], A=config.A, B=config.B, channels=config.channels)
    recipe = replace(study.recipe, batch_size=10, warm_up=0)
    return study._replace(config=config, images=lambda: images, recipe=recipe)


@pytest.mark.parametrize("name", studies.STUDIES)
def test_a_study_writes_what_it_promises(tmp_path, name):
    study = tiny(name)
    studies.train(name, study, steps=2, folder=tmp_path)
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["command"] == f"python tutorial/runs/studies.py {name} --steps 2 --workers 1"
    assert result["steps"] == 2 and result["step"] == [2] and result["seconds"] >= 0 and result["machine"]
    assert len(result["L_x"]) == len(result["L_z"]) == len(result["gradient_norm"]) == 1
    assert result["validation"]["step"] == [1, 2]
    assert result["validation"]["bound"][-1] == pytest.approx(result["held_out"]["validation"]["bound"], abs=1e-3)
    each, test = np.load(tmp_path / f"{name}-bounds.npy"), result["held_out"]["test"]
    assert each.mean() == pytest.approx(test["bound"], rel=1e-5) and len(each) == test["images"] == 20
    assert each.std(ddof=1) / 20**0.5 == pytest.approx(test["standard_error"], rel=1e-3)
    if study.config.read_N is None:
        with np.load(tmp_path / f"{name}-pictures.npz") as shown:
            assert shown["samples"].shape == (36, 60, 60) and shown["samples"].dtype == np.uint8
            assert shown["drawing"].shape == shown["reconstruction"].shape == (2, 6, 60, 60)
            assert (shown["drawing"][-1] == shown["samples"][:6]).all()
    else:  # opened like any model, it gives the same bound, but for rounding
        model = checkpoint.load(tmp_path / f"{name}.npz").model
        assert evaluate(model, study.images().test).bound == pytest.approx(test["bound"], rel=1e-3)
    assert not list(tmp_path.glob("*.partial"))


def test_houses_are_colour_images_in_three_parts():
    config, images = studies.STUDIES["houses"].config, studies.houses(40)
    parts = images.train, images.validation, images.test
    assert [len(part) for part in parts] == [36, 2, 2] and images.shape == config.image_shape and images.grey
    assert (np.rint(255 * config.as_images(np.concatenate(parts))) == scenes.house_numbers(40)).all()


def test_time_gives_a_number_of_steps_and_these_give_the_run_again(tmp_path, monkeypatch):
    study = tiny("two-digits")
    for folder in ("timed", "again"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(studies, "time_of_step", lambda *about: 0.0199)
    studies.train("two-digits", study, seconds=2, folder=tmp_path / "timed")
    timed = json.loads((tmp_path / "timed" / "two-digits.json").read_text())
    assert timed["steps"] == timed["recipe"]["horizon"] == 100 and timed["step"] == [50, 100]
    assert timed["seconds_asked_for"] == 2 and timed["seconds_a_step_before"] == 0.0199
    assert len(timed["validation"]["step"]) == 10
    studies.train("two-digits", study, steps=100, folder=tmp_path / "again")
    again = json.loads((tmp_path / "again" / "two-digits.json").read_text())
    for key in ("command", "L_x", "L_z", "validation", "held_out"):
        assert timed[key] == again[key]


def test_a_step_is_timed():
    assert 0 < studies.time_of_step(tiny("canvas-zero"), tiny("canvas-zero").images(), 1, np) < 10


def test_only_the_canvas_differs():
    """The three begin with the same weights; one canvas is black; and one, and nothing else of a start, is learned."""
    names = ("canvas-zero", "canvas-black", "canvas-learned")
    x = np.random.default_rng(0).integers(0, 2, (4, 784)).astype(np.float32)
    noise = np.zeros((2, 4, 3), np.float32)
    begun = {}
    for name in names:
        study = tiny(name)
        model = begun[name] = study.Model.initial(study.config)
        c, h_enc, *_ = model._start(4, *study.config.states)
        black = name == "canvas-black"
        assert np.allclose(1 / (1 + np.exp(-(c.value if isinstance(c, Tensor) else c))), 0.01 if black else 0.5)
        assert not h_enc.any()
        _, _, gradients = nats_and_gradients(model, x, noise, 4)
        by_name = dict(zip(model.parameters, gradients, strict=True))
        moved = {name for name in by_name if name.startswith("start/") and by_name[name].any()}
        assert moved == ({"start/c"} if name == "canvas-learned" else set())
        assert by_name["decoder/w"].any() and by_name["encoder/w"].any()
    for name in set(begun["canvas-zero"].arrays()) - {"start/c"}:
        assert all((begun[other].arrays()[name] == begun["canvas-zero"].arrays()[name]).all() for other in names)


def test_a_canvas_is_not_shared_by_workers(tmp_path):
    with pytest.raises(minidraw.BadInput, match="1 worker"):
        studies.train("canvas-black", tiny("canvas-black"), steps=2, workers=2, folder=tmp_path)


def test_a_study_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*about):
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "HERE", tmp_path)
    monkeypatch.setattr(studies, "STUDIES", {"houses": tiny("houses")})
    monkeypatch.setattr(studies, "evaluate", interrupt)
    assert studies.main(["houses", "--steps", "2"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("studies.py: interrupted") and not list(tmp_path.iterdir())
