"""DRAW in one file: it is the library's DRAW, number for number, and short."""

import ast
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from minidraw.adam import Adam, clip_factor, global_norm
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.objective import nats_and_gradients

PATH = Path(__file__).parents[1] / "tutorial" / "draw_in_one_file.py"
OWN = {}
SMALL = {"A": 7, "T": 3, "READ_N": 3, "WRITE_N": 4, "Z": 2, "ENC": 5, "DEC": 4}


@pytest.fixture
def one_file():
    spec = importlib.util.spec_from_file_location("draw_in_one_file", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=[OWN, SMALL], ids=["its own sizes", "small and all different"])
def sized(one_file, request):
    """The module, and the library's Config for the same sizes."""
    for name, size in request.param.items():
        setattr(one_file, name, size)
    return one_file, config_of(one_file)


def config_of(one_file):
    return Config(
        T=one_file.T,
        read_N=one_file.READ_N,
        write_N=one_file.WRITE_N,
        z_size=one_file.Z,
        enc_size=one_file.ENC,
        dec_size=one_file.DEC,
        A=one_file.A,
        B=one_file.A,
    )


def case(config, rng, batch=3):
    """Parameters none of which is zero, images and noise, in float64."""
    theta = {name: rng.standard_normal(shape) / shape[0] ** 0.5 for name, shape in config.shapes.items()}
    x = (rng.random((batch, config.pixels)) < 0.3).astype(float)
    return theta, x, rng.standard_normal((config.T, batch, config.z_size))


def assert_close(got, want, tolerance):
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def test_its_nats_are_the_librarys(sized, rng):
    one_file, config = sized
    theta, x, noise = case(config, rng)
    L_x, L_z, _, _ = one_file.draw(theta, x, noise)
    for got, want in zip((L_x, L_z), Draw(config, theta).nats(x, noise), strict=True):
        assert_close(got, want.value, 1e-12)


def test_its_gradients_are_the_librarys(sized, rng):
    one_file, config = sized
    theta, x, noise = case(config, rng)
    _, _, c, steps = one_file.draw(theta, x, noise)
    dtheta = one_file.gradients(theta, x, c, steps)
    _, _, wanted = nats_and_gradients(Draw(config, theta), x, noise, len(x))
    assert set(dtheta) == set(config.shapes)
    for name, want in zip(config.shapes, wanted, strict=True):
        assert np.abs(want).max() > 0
        assert_close(dtheta[name], want, 1e-10)


@pytest.mark.parametrize("size", [1e-3, 10.0], ids=["short gradients", "gradients to be clipped"])
def test_its_adam_is_the_librarys(one_file, rng, size):
    theta = {"a": rng.standard_normal((3, 2)), "b": rng.standard_normal(4)}
    wanted = [array.copy() for array in theta.values()]
    adam, m, v = Adam(wanted), {}, {}
    for t in range(1, 5):
        dtheta = {name: size * rng.standard_normal(array.shape) for name, array in theta.items()}
        one_file.adam(theta, dtheta, m, v, t, 0.1)
        factor = clip_factor(global_norm(dtheta.values()), one_file.CLIP)
        assert (factor == 1) == (size < 1)
        adam.update([factor * g for g in dtheta.values()], 0.1)
        for got, want in zip(theta.values(), wanted, strict=True):
            assert_close(got, want, 1e-12)


def test_it_starts_where_the_library_starts(sized):
    one_file, config = sized
    theta = one_file.initial(np.random.default_rng(5))
    wanted = Draw.initial(config, seed=5).arrays()
    assert set(theta) == set(wanted) and len(theta) == 14
    for name, want in wanted.items():
        assert theta[name].dtype == want.dtype
        np.testing.assert_array_equal(theta[name], want)


def test_what_it_draws_the_library_draws(sized, rng):
    one_file, config = sized
    theta, _, z = case(config, rng)
    wanted = [glimpse.c.value for glimpse in Draw(config, theta).generate(z)]
    assert_close(one_file.generate(theta, z), 1 / (1 + np.exp(-np.stack(wanted))), 1e-12)


def test_a_few_steps_lower_the_loss(one_file, rng):
    for name, size in SMALL.items():
        setattr(one_file, name, size)
    _, x, noise = case(config_of(one_file), rng, batch=8)
    theta, m, v, nats = one_file.initial(rng), {}, {}, []
    for t in range(1, 31):
        L_x, L_z, c, steps = one_file.draw(theta, x, noise)
        nats.append((L_x + L_z).mean())
        one_file.adam(theta, one_file.gradients(theta, x, c, steps), m, v, t, 1e-2)
    assert nats[-1] < 0.9 * nats[0]


def run(one_file, monkeypatch, *flags):
    monkeypatch.setattr("sys.argv", [PATH.name, *map(str, flags)])
    one_file.main()


def test_it_runs(one_file, monkeypatch, tmp_path, capsys):
    """Small, on the bundled digits: what it prints, the picture, and float32 from beginning to end."""
    for name, size in {"T": 2, "READ_N": 2, "WRITE_N": 3, "Z": 2, "ENC": 4, "DEC": 3, "BATCH": 5}.items():
        setattr(one_file, name, size)
    trained, printed, pictures = [], [], []
    generate = one_file.generate
    monkeypatch.setattr(one_file, "generate", lambda theta, z: trained.append(theta) or generate(theta, z))
    for name in ("a.png", "b.png"):
        run(one_file, monkeypatch, "--steps", 102, "--seed", 3, "--out", tmp_path / name)
        printed.append(capsys.readouterr().out.splitlines())
        pictures.append((tmp_path / name).read_bytes())
    assert [line.split(":")[0] for line in printed[0]] == ["step 100", "step 102", "validation"]
    assert all(np.isfinite(float(line.split()[-4])) for line in printed[0])
    assert {array.dtype for array in trained[0].values()} == {np.dtype(np.float32)}
    assert printed[0] == printed[1] and pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "flags",
    [
        ["--steps", "0"],
        ["--steps", "many"],
        ["--seed", "-1"],
        ["--out", "drawn.jpg"],
        ["--out", "no/such/folder/drawn.png"],
        ["--out", "."],
    ],
)
def test_bad_flags_get_one_clear_line(one_file, monkeypatch, capsys, flags):
    with pytest.raises(SystemExit) as exit:
        run(one_file, monkeypatch, *flags)
    *usage, line = capsys.readouterr().err.splitlines()
    assert exit.value.code == 2 and all(part.startswith(("usage:", " ")) for part in usage)
    assert "error: " in line and flags[0] in line


def test_without_the_digits_it_says_so(one_file, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(one_file, "MNIST", tmp_path / "mnist.npz")
    with pytest.raises(SystemExit) as exit:
        run(one_file, monkeypatch)
    assert exit.value.code == 2 and f"{tmp_path / 'mnist.npz'} is needed" in capsys.readouterr().err


def test_it_is_short():
    """At most 150 lines of code: without docstrings, comments and blank lines."""
    text = PATH.read_text(encoding="utf-8")
    documented = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Module | ast.FunctionDef)]
    docstrings = [node.body[0] for node in documented if ast.get_docstring(node)]
    prose = {number for d in docstrings for number in range(d.lineno, d.end_lineno + 1)}
    lines = enumerate(text.splitlines(), start=1)
    code = [line for number, line in lines if number not in prose and line.split("#")[0].strip()]
    assert len(code) <= 150


def test_every_equation_that_it_names_is_in_its_chapter():
    chapters = "".join(page.read_text(encoding="utf-8") for page in PATH.parent.glob("[0-9][0-9]-*.md"))
    numbers = re.findall(r"\((\d+)\.(\d+)\)", PATH.read_text(encoding="utf-8"))
    assert {int(chapter) for chapter, _ in numbers} >= {3, 4, 5, 6, 7, 8, 9, 10, 11}
    for chapter, number in numbers:
        assert f'<a id="eq-{chapter}-{number}"></a>' in chapters, f"({chapter}.{number})"
