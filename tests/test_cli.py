"""The commands, as a person types them."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

import minidraw
from minidraw import checkpoint, cli, gradcheck, images
from minidraw.presets import PRESETS


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as exit:
            status = exit.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


@pytest.fixture
def trained(run, small_images):
    """A run folder with three steps in it."""
    status, out, _ = run("train", "--data", small_images, "--batch-size", 10, "--steps", 3)
    assert status == 0 and "runs/quick-1" in out.replace("\\", "/")
    return "runs/quick-1"


def paths(out):
    return [line.partition(": ")[0] for line in out.splitlines() if ".png" in line or ".gif" in line]


@pytest.mark.slow
def test_the_bundled_model_draws(run):
    status, out, _ = run("sample", "--count", 5)
    assert status == 0
    assert [p.replace("\\", "/").rpartition("/")[2] for p in paths(out)] == [
        "samples.png",
        "drawing.png",
        "drawing.gif",
        "white_patches.png",
    ]
    status, again, _ = run("sample", "--count", 5)
    assert "sample-2" in again and "sample-1" not in again
    for one, two in zip(paths(out), paths(again), strict=True):  # one seed, one picture
        assert open(one, "rb").read() == open(two, "rb").read()


@pytest.mark.slow
def test_the_bundled_model_reconstructs(run):
    status, out, _ = run("reconstruct", "--out", "here")
    assert status == 0 and len(paths(out)) == 4
    status, _, err = run("reconstruct", "--out", "here")
    assert status == 1 and "exists already" in err


def test_the_bundled_models_have_names(run):
    for name in ("blog", "paper"):
        assert minidraw.load(name).config == PRESETS[name][0]
        assert run("params", name)[1] == run("params", "--preset", name)[1]
    assert minidraw.load().config == PRESETS["paper"][0]
    for command in ("sample", "reconstruct", "evaluate", "page"):
        assert "blog or paper" in " ".join(run(command, "--help")[1].split())
    status, _, err = run("train", "--resume", "paper")
    assert status == 1 and "without its training state" in err and not os.listdir()


def test_a_folder_comes_before_a_bundled_model(run):
    small = minidraw.Draw.initial(minidraw.Config(T=2, enc_size=4, dec_size=4))
    os.mkdir("paper")
    checkpoint.save_model("paper/checkpoint.npz", small, {})
    assert minidraw.load("paper").config == small.config and minidraw.load().config == PRESETS["paper"][0]
    os.mkdir("blog")
    status, _, err = run("evaluate", "blog")
    assert status == 1 and "no such file" in err and err.count("\n") == 1


def test_an_unknown_name_is_told_the_bundled_ones(run):
    for command in ("sample", "reconstruct", "evaluate", "page"):
        status, _, err = run(command, "papre")
        assert status == 1 and "papre" in err and "blog or paper" in err and err.count("\n") == 1
    with pytest.raises(minidraw.BadInput, match="blog or paper"):
        minidraw.load("papre")


def test_the_bundled_models_are_small_and_know_their_images():
    for name, path in checkpoint.BUNDLED.items():
        assert path.stat().st_size <= 2.2e6, name
        with np.load(path) as arrays:
            assert {a.dtype for key, a in arrays.items() if key.startswith("parameters/")} == {np.dtype(np.float16)}
        assert checkpoint.load(path).about == {"data": None, "checksum": images.mnist().checksum}


@pytest.mark.slow
def test_the_papers_model_is_the_better_one():
    test = images.mnist().test[:100]
    bounds = {name: minidraw.evaluate(minidraw.load(name), test, seed=0).bound for name in checkpoint.BUNDLED}
    assert bounds["paper"] < bounds["blog"] < 110


@pytest.mark.slow
def test_the_life_of_a_run(run, trained, small_images):
    assert run("sample", trained, "--count", 2)[0] == 0
    assert run("reconstruct", trained)[0] == 0
    status, out, _ = run("evaluate", trained, "--samples", 3, "--json")
    result = json.loads(out)
    assert status == 0 and result["images"] == 6 and result["importance_weighted"] < result["bound"]
    assert len(result["L_z_by_step"]) == 5
    status, out, _ = run("evaluate", trained)
    assert status == 0 and "bound" in out and "upper bound" in out
    status, out, _ = run("train", "--resume", trained)
    assert status == 0 and "done all of its 3 steps" in out
    assert run("train", "--resume", trained, "--steps", 5)[0] == 0
    assert len(trained_lines(trained)) == 5


def trained_lines(folder):
    with open(f"{folder}/metrics.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.slow
def test_without_attention(run, small_images):
    status, out, _ = run("train", "--no-attention", "--data", small_images, "--batch-size", 10, "--steps", 2)
    assert status == 0
    folder = "runs/quick-no-attention-1"
    assert len(paths(run("sample", folder)[1])) == 3 and len(paths(run("reconstruct", folder)[1])) == 3


@pytest.mark.slow
def test_grey_images_may_stay_grey(run, small_images):
    options = ("--data", small_images, "--batch-size", 10, "--steps", 2)
    assert run("train", "--keep-grey", *options)[0] == 0
    assert run("train", "--resume", "runs/quick-1", "--steps", 3)[0] == 0
    own = run("evaluate", "runs/quick-1", "--json")[1]  # on grey images, as it was trained
    assert own == run("evaluate", "runs/quick-1", "--json", "--data", small_images, "--keep-grey")[1]
    assert own != run("evaluate", "runs/quick-1", "--json", "--data", small_images)[1]


@pytest.mark.slow
def test_bench_reports_the_ratio(run):
    status, out, _ = run("bench", "--preset", "blog", "--no-attention", "--rounds", 1, "--json")
    (row,) = json.loads(out)
    assert status == 0 and row["ratio"] == pytest.approx(row["step_ms"] / row["floor_ms"])
    assert (row["preset"], row["attention"], row["device"]) == ("blog", False, "cpu")
    assert row["step_ms"] > 0 and (row["peak_mib"] is None or row["peak_mib"] > 30)


@pytest.mark.slow
def test_bench_shows_where_the_time_goes(run):
    status, out, _ = run("bench", "--preset", "quick", "--rounds", 3, "--profile")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    rows = {line[:36].strip(): line[36:].split() for line in out.splitlines() if line.endswith("%")}
    assert {"affine", "lstm", "filterbank", "read", "write"} <= set(rows)
    assert 90 <= sum(int(share.rstrip("%")) for _, _, share in rows.values()) <= 110
    for op in ("affine", "lstm", "filterbank", "read", "write"):  # of a busy machine, times and no shares
        assert all(float(milliseconds) > 0 for milliseconds in rows[op][:2]), op


def test_params_lists_the_blogs_variables(run):
    status, out, _ = run("params", "--preset", "blog")
    lines = out.splitlines()
    assert status == 0 and len(lines) == 15 and lines[2].split(maxsplit=1) == ["encoder/w", "(562, 1024)"]
    assert run("params", "blog")[1] == out  # the bundled model of that name is the blog's
    assert "read/w" not in run("params", "--preset", "blog", "--no-attention")[1]


def test_gradcheck_reports_failure_by_its_status(run, monkeypatch):
    from minidraw import gradcheck_cases

    few = gradcheck_cases.op_cases()[:3]
    monkeypatch.setattr(gradcheck_cases, "op_cases", lambda: few)
    monkeypatch.setattr(gradcheck_cases, "model_cases", lambda: [])
    status, out, _ = run("gradcheck")
    assert status == 0 and re.search(r"6 of 6 gradients agree", out) and "complex step" in out
    monkeypatch.setattr(gradcheck, "COMPLEX_STEP_LIMIT", -1)
    status, out, _ = run("gradcheck")
    assert status == 1 and "FAILED" in out


def test_gradcheck_has_a_line_for_every_op_or_for_every_gradient(run, monkeypatch):
    from minidraw import gradcheck_cases

    few = gradcheck_cases.op_cases()[:3]
    monkeypatch.setattr(gradcheck_cases, "op_cases", lambda: few)
    monkeypatch.setattr(gradcheck_cases, "model_cases", lambda: [])
    brief, verbose = run("gradcheck")[1], run("gradcheck", "--verbose")[1]
    assert len(brief.splitlines()) == 1 + 3 + 1 and len(verbose.splitlines()) == 1 + 6 + 1
    assert max(map(len, (brief + verbose).splitlines())) <= 80


def test_a_bare_command_prints_help(run):
    status, out, _ = run()
    assert status == 0 and "usage: minidraw" in out and "reconstruct" in out


def test_bench_says_when_the_machine_was_busy(run, monkeypatch):
    from minidraw import bench

    quiet = bench.Timing("blog", True, "cpu", 1, 10.0, 1.0, 5.0, 0.5, 2.0, 1000.0, None)
    for row, warns in ((quiet, False), (quiet._replace(step_spread_ms=3.0), True)):
        monkeypatch.setattr(bench, "bench", lambda *_, row=row: row)
        status, out, err = run("bench", "--preset", "blog")
        assert status == 0 and ("kept this machine busy" in err) is warns
        assert max(map(len, out.splitlines())) <= 80


@pytest.mark.slow
def test_lines_break_at_words(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    lines = run("sample", "--count", 1, "--out", "pictures")[1].splitlines()
    assert max(map(len, lines)) <= 50 and len(lines) > 4


@pytest.mark.slow
def test_data_build(run, tmp_path, rng):
    from test_images import idx

    for split, count in (("train", 10_010), ("test", 20)):
        names = images.IDX_FILES[split]
        (tmp_path / names[0]).write_bytes(idx(rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)))
        (tmp_path / names[1]).write_bytes(idx(np.zeros(count, np.uint8)))
    status, out, _ = run("data", "build", tmp_path, "--out", "built.npz")
    assert status == 1 and "DIFFERENT" in out  # these are not MNIST's images
    assert run("data", "build", tmp_path, "--out", "built.npz")[0] == 1  # exists already
    status, _, err = run("data", "build", tmp_path / "nowhere")
    assert status == 1 and "no such folder" in err


USAGE = [
    ["train", "--preset", "huge"],
    ["train", "--stepz", "3"],
    ["train", "--steps", "0"],
    ["train", "--steps", "many"],
    ["train", "--learning-rate", "-1"],
    ["train", "--learning-rate", "nan"],
    ["train", "--seed", "-1"],
    ["train", "--resume", "runs/x", "--seed", "1"],
    ["train", "--resume", "runs/x", "--seed", "0"],
    ["train", "--learn", "3"],
    ["train", "--out", ""],
    ["sample", ""],
    ["sample", "--count", "99999999999999999999"],
    ["train", "--resume", "runs/x", "--keep-grey"],
    ["sample", "--count", "0"],
    ["params", "runs/x", "--preset", "blog"],
    ["sing"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_command_lines_exit_with_2(run, arguments):
    status, _, err = run(*arguments)
    assert status == 2 and "error:" in err


@pytest.mark.slow
def test_what_goes_wrong_gets_one_line_and_status_1(run, trained, small_images, tmp_path):
    (tmp_path / "file").write_text("in the way")
    np.save("large.npy", np.zeros((20, 9, 9)))
    np.save("bright.npy", np.full((20, 6, 5), 1.5))
    cases = {
        ("sample", "runs/none"): "no such file",
        ("evaluate", "."): "no such file",
        ("train", "--data", "none.npy"): "none.npy",
        ("train", "--data", "bright.npy"): "floats must lie in",
        ("train", "--data", small_images, "--batch-size", "100"): "batch_size 100 exceeds",
        ("evaluate", trained, "--data", "large.npy"): r"\(9, 9, 1\), but the model draws \(6, 5, 1\)",
        ("reconstruct", trained, "--keep-grey"): "goes with --data",
        ("train", "--resume", "runs/none"): "no such file",
        ("train", "--out", trained): "exists already",
        ("train", "--out", "file/run"): "file",
        ("sample", "--out", "file/pictures"): "file",
    }
    for arguments, message in cases.items():
        status, _, err = run(*arguments)
        assert status == 1, arguments
        assert re.search(message, err) and err.count("\n") == 1, (arguments, err)
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["quick-1"]  # and no half-made run


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipe")
def test_nobody_reading_is_no_error():
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-m", "minidraw", "params"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1
    process.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 2, 300), (40, 300, 2), (12, 1, 1), (12, 4, 5, 3)])
def test_pictures_of_every_shape(run, shape, rng):
    np.save("images.npy", rng.integers(0, 256, shape).astype(np.uint8))
    assert run("train", "--data", "images.npy", "--batch-size", 10, "--steps", 1, "--out", "run")[0] == 0
    assert run("sample", "run", "--count", 4)[0] == 0
    assert run("reconstruct", "run")[0] == 0


def test_a_replaced_data_file_is_noticed(run, small_images):
    images = np.load(small_images)
    np.save("mine.npy", images)
    assert run("train", "--data", "mine.npy", "--batch-size", 10, "--steps", 1, "--out", "run")[0] == 0
    np.save("mine.npy", 255 - images)
    status, _, err = run("evaluate", "run")
    assert status == 1 and "no longer the images" in err


def test_a_gpu_where_there_is_none(run):
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception:
        status, _, err = run("train", "--device", "gpu")
        assert status == 1 and "--device" in err and err.count("\n") == 1
    else:
        pytest.skip("there is a GPU here")


def test_divergence_is_one_line_and_the_checkpoint_stays(run, small_images):
    arguments = ("train", "--data", small_images, "--batch-size", 10, "--steps", 300, "--learning-rate", "1e6")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not a word from NumPy, either
        status, _, err = run(*arguments)
    assert status == 1 and "training diverged at step" in err.splitlines()[-1]
    assert run("sample", "runs/quick-1")[0] == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C alone on Windows")
def test_ctrl_c_saves_and_says_how_to_go_on(small_images, tmp_path):
    command = [sys.executable, "-m", "minidraw", "train", "--data", str(small_images), "--batch-size", "10"]
    process = subprocess.Popen(
        [*command, "--steps", "100000"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "runs" / "quick-1" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)  # a full buffer of lines has been written
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in err
    step = int(re.search(r"stopped after (\d+) steps", out).group(1))
    assert "minidraw train --resume runs/quick-1" in out
    lines = metrics.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["step"] == step


def test_help_names_every_option_and_its_default(run):
    for name in ("train", "sample", "reconstruct", "evaluate", "gradcheck", "params", "data"):
        status, out, _ = run(name, "--help")
        assert status == 0
    help_text = run("train", "--help")[1]
    for option in ("--preset", "--steps", "--batch-size", "--learning-rate", "--seed", "--device", "--data", "--out"):
        assert option in help_text
    assert help_text.count("default") >= 8
    parsers = [cli._parser()]
    for parser in parsers:  # and its subcommands', as they are found
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif action.nargs != 0 and action.option_strings:
                assert "default" in action.help or "instead of" in action.help, (parser.prog, action.dest)
            else:
                assert action.help, (parser.prog, action.dest)


def test_the_presets_are_the_papers_and_the_blogs():
    blog, recipe = PRESETS["blog"]
    assert (blog.T, blog.read_N, blog.write_N, blog.z_size, blog.enc_size, blog.dec_size) == (10, 5, 5, 10, 256, 256)
    assert (recipe.steps, recipe.batch_size) == (10_000, 100) and not blog.learned_start
    paper, _ = PRESETS["paper"]
    assert (paper.T, paper.read_N, paper.write_N, paper.z_size, paper.enc_size) == (64, 2, 5, 100, 256)
    assert paper.learned_start
