"""The page of practice: its referee tells right from wrong, and the page can be worked through from its stubs."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from minidraw.autodiff import Tensor
from minidraw.errors import BadInput
from minidraw.exercises import Gradients

TUTORIAL = Path(__file__).parents[1] / "tutorial"
TEXT = (TUTORIAL / "practice.md").read_text(encoding="utf-8")
sys.path.insert(0, str(TUTORIAL))  # so that the page finds practice.py
spec = importlib.util.spec_from_file_location("chapters", TUTORIAL / "chapters.py")
chapters = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chapters)

A, B = np.array([1.0, -2, 3]), np.array([2.0, 1, -1])
Y = A * B


@pytest.fixture
def d():
    """The loss is the sum of y^2 + a, with y = a b."""
    values = {"a": Tensor(A), "b": Tensor(B)}
    values["y"] = values["a"] * values["b"]
    return Gradients((values["y"] * values["y"] + values["a"]).sum(), values)


def grade(d, name):
    return {name: (grade, remark) for name, grade, remark in d.grades()}[name]


def test_right_lines_are_exact_in_the_order_of_the_tape(d):
    d.y = 2 * Y
    d.b = d.y * A
    d.a = d.y * B + 1
    assert str(d) == "all 3 exact"
    assert [name for name, *_ in d.grades()] == ["y", "b", "a"]


def test_a_forgotten_term_is_close_and_a_sign_is_wrong(d):
    d.y, d.a, d.b = 2 * Y, 2 * Y * B, -2 * Y * A
    assert grade(d, "a")[0] == "close" and grade(d, "b") == (
        "wrong",
        "turned by 180.0 degrees, 1 times as long as it should be",
    )
    lines = str(d).splitlines()
    assert lines[0] == "exact 1, close 1, wrong 1, missing 0" and lines[-1] == "first on the way back: d.b"


def test_a_factor_a_small_error_zeros_a_shape_and_nan(d):
    d.y = Y
    assert grade(d, "y") == ("close", "turned by 0.0 degrees, 0.5 times as long as it should be")
    d.y = 2.000001 * Y
    assert grade(d, "y")[0] == "close"
    d.y = 0 * Y
    assert grade(d, "y")[0] == "wrong"
    d.y = np.nan * Y
    assert grade(d, "y")[0] == "wrong"
    d.y = 2 * Y[None]
    assert grade(d, "y") == ("wrong", "shape (1, 3), and it should be (3,)")
    d.y = None
    assert grade(d, "y")[0] == "missing"


def test_a_mistake_spoils_no_other_line(d):
    d.y = 17 * A
    d.b = d.y * A
    assert grade(d, "y")[0] == "wrong" and grade(d, "b")[0] == "exact"


def test_what_was_not_handed_in_cannot_be_read_and_what_is_right_not_be_changed(d):
    with pytest.raises(AttributeError, match="d.y has not been handed in yet"):
        d.b = d.y * A
    with pytest.raises(AttributeError, match="d.c is not asked for"):
        d.c = 1
    d.y = 2 * Y
    with pytest.raises(ValueError, match="read-only"):
        d.y += 1


def test_a_gradient_of_zero_is_refused():
    a = Tensor(A)
    with pytest.raises(BadInput, match="the gradient of b is zero everywhere"):
        Gradients((a * a).sum(), {"a": a, "b": Tensor(B)})


# The page.


@pytest.fixture(scope="module")
def page():
    """What the page's blocks leave behind, its solutions included, up to the ops that come after the long exercise."""
    namespace = {}
    for part in chapters.parse(TEXT.split("## Three ops")[0]):
        if part.kind == "python":
            exec(part.text, namespace)
    return namespace


def test_every_value_of_the_step_is_asked_for(page):
    """All that the forward blocks name, but for what is data or a shorthand."""
    forward = TEXT.split("### The referee")[0]
    step = next(part.text for part in chapters.parse(forward) if "# Read: the image" in part.text)
    named = {name for left in re.findall(r"^([\w, ]+) = ", step, re.MULTILINE) for name in left.split(", ")}
    asked = {name for name, *_ in page["d"].grades()}
    assert named - asked == {"p", "sigma", "loss"}
    assert {name for name in asked - named if not name.endswith("_prev")} == {
        f"{kind}_{name}" for kind in "Wb" for name in ("read", "enc", "mu", "sigma", "dec", "patch", "write")
    }


@pytest.mark.parametrize(
    "line",
    [
        "d.h_dec = dw @ W_patch.T",
        "d.mu = d.z",
        "d.log_sigma = d.z * noise * sigma",
        "d.c_prev = d.c",
        "d.h_dec_prev = d.in_dec[:, Z:] + d.in_enc[:, 2 * N * N : -H]",
        "d.F_y_r = (d.P_hat @ F_x_r) @ T(x_hat)",
        "d.delta_w = (d.mu_x_w * offset).sum(axis=1, keepdims=True)",
        "d.cell_dec = d.h_dec * o_dec",
        "d.L_x = np.ones(n)",
    ],
)
def test_a_forgotten_road_is_seen_and_named(page, line):
    name = re.match(r"d\.(\w+)", line)[1]
    right = getattr(page["d"], name)
    exec(line, page)
    assert str(page["d"]).endswith(f"first on the way back: d.{name}")
    setattr(page["d"], name, right)
    assert str(page["d"]) == "all 64 exact"


@pytest.mark.slow
def test_it_can_be_worked_through_without_a_look_at_the_solutions(tmp_path):
    """As in a notebook, where what is folded does not run."""
    text = re.sub(r"<details.*?</details>", "", TEXT, flags=re.DOTALL)
    path = tmp_path / "practice.md"
    path.write_text(re.sub(r"> ```text\n.*?\n> ```\n", "", text, flags=re.DOTALL), encoding="utf-8")
    chapters.run(path)


def test_exercises_have_solutions_and_answers_say_where_to_look():
    exercises = re.findall(r"\*\*Exercise P\.(\d)", TEXT)
    assert exercises == list("1234567") and TEXT.count("<summary>Solution</summary>") == 7
    blocks = [part for part in chapters.parse(TEXT) if part.kind == "python"]
    for check in re.findall(r"def (check_\w+)\(", TEXT):
        uses = [part for part in blocks if re.search(rf"^{check}\(", part.text, re.MULTILINE)]
        assert ["raises-exception" in part.info for part in uses] == [True, False], check
    questions = TEXT.split("## Fifty questions")[1]
    assert re.findall(r"^\*\*(\d+)\.\*\*", questions, re.MULTILINE) == [str(k) for k in range(1, 51)]
    answers = re.findall(r"<summary>Answer</summary>\n\n(.*?)\n\n</details>", questions, re.DOTALL)
    assert len(answers) == 50
    for answer in answers:
        assert re.search(r"\]\(\d\d-[\w-]+\.md", answer), answer
