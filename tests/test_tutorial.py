"""The tutorial: every chapter runs and shows what it says; its mathematics renders; links lead somewhere."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from minidraw import exercises, ops, plots
from minidraw.ops import elementary
from support.equations import width

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "tutorial"
sys.path.insert(0, str(TUTORIAL))  # so that chapter 16 finds cluttered.py
spec = importlib.util.spec_from_file_location("chapters", TUTORIAL / "chapters.py")
chapters = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chapters)

CHAPTERS = chapters.paths()
PAGES = sorted(TUTORIAL.glob("*.md"))
TEXT = {path.name: path.read_text(encoding="utf-8") for path in PAGES}
PROGRAMS = chapters.programs()  # the chapters, and the page of practice
by_name = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
by_program = pytest.mark.parametrize("path", PROGRAMS.values(), ids=lambda path: path.stem)

SCREEN = 45  # lines
FORBIDDEN = r"\\tag\b|\\operatorname|\\newcommand|\\mbox|\\bm\b|\\label|\\begin\{align\*?\}"
NUMBER = re.compile(r"\\qquad \\text\{\((\d+\.\d+)\)\}(?:\n\\end\{aligned\})?$")  # at the end, or in the last row
NUMBERED = re.compile(r'<a id="eq-(\d+)-(\d+)"></a>\n\n```math\n(.*?)\n```', re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")
CITED = re.compile(r"(?<![\w.])\((\d+\.\d+)\)")


def words(text):
    """A page without its fences, its mathematics and its code."""
    return re.sub(r"\$`.*?`\$|`[^`\n]*`", "", prose(text), flags=re.DOTALL)


def python(text):
    return "\n".join(part.text for part in chapters.parse(text) if part.kind == "python")


def prose(text):
    """A page without its fences."""
    return "\n".join(part.text for part in chapters.parse(text) if part.kind == "")


@pytest.mark.slow
@by_program
def test_a_chapter_does_what_it_says(path):
    chapters.run(path)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_chapter_says_how_to_open_it_as_a_notebook(name):
    assert f"`python tutorial/chapters.py notebook {name}`" in TEXT[PROGRAMS[name].name]


def test_the_numbers_ascend_and_every_foot_leads_to_its_neighbours():
    numbers = [int(path.name[:2]) for path in CHAPTERS]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0
    for at, path in enumerate(CHAPTERS):
        before = [f"[← {numbers[k]}]({CHAPTERS[k].name})" for k in range(at)[-1:]]
        after = [f"[{numbers[k]} →]({CHAPTERS[k].name})" for k in range(len(CHAPTERS))[at + 1 : at + 2]]
        foot = " · ".join([*before, "[contents](README.md)", *after])
        assert TEXT[path.name].endswith(f"\n---\n\n{foot}\n"), path.name


def test_the_contents_have_every_chapter_under_its_own_title():
    rows = re.findall(r"^\| \[(\d+)\]\((\S+)\) \| (.*) \| \d+ \|$", TEXT["README.md"], re.MULTILINE)
    titles = [TEXT[path.name].splitlines()[0] for path in CHAPTERS]
    assert [file for _, file, _ in rows] == [path.name for path in CHAPTERS]
    assert [f"# {number}. {title}" for number, _, title in rows] == titles


@pytest.mark.parametrize("name", TEXT)
def test_code_fits_the_page(name):
    """Lines of a block to run have at most 96 columns, docstrings in what is quoted at most 88."""
    for part in chapters.parse(TEXT[name]):
        texts = [part.text] if part.kind == "python" else []
        if part.kind == "py":
            texts = re.findall(r'""".*?"""', part.text, re.DOTALL)
        for line in "\n".join(texts).splitlines():
            assert len(line) <= (96 if part.kind == "python" else 88), f"{name}:{part.line}: {line}"


# Mathematics: what GitHub renders, and what it mangles.


def check_mathematics(name, text):
    parts = chapters.parse(text)
    maths = [part.text for part in parts if part.kind == "math"]
    inline = re.findall(r"\$`(.*?)`\$", prose(text), re.DOTALL)
    for formula in inline:
        assert "\n" not in formula, f"{name}: a line ends within {formula!r}"
    for line in text.splitlines():
        assert not (line.startswith("|") and re.search(r"\$`[^`]*\|", line)), (
            f"{name}: | within a table's formula: {line}"
        )
        assert not re.search(r"\*\*[^*]*\$`[^*]*\*\*", re.sub(r"\*\*[^*$]*\*\*", "", line)), f"{name}: bold: {line}"
    for formula in maths + inline:
        assert not re.search(FORBIDDEN, formula), f"{name}: GitHub does not render {formula}"
        assert formula.count("{") == formula.count("}"), f"{name}: braces of {formula}"
        left, right = (len(re.findall(rf"\\{side}(?![a-z])", formula)) for side in ("left", "right"))
        assert left == right, f"{name}: brackets of {formula}"
    assert "$" not in words(text), f"{name}: a dollar that is not dollar-backtick"
    for line in prose(text).splitlines():
        assert not (line.startswith("#") and "$" in line), f"{name}: mathematics in a heading: {line}"
    for summary in re.findall(r"<summary>.*", text):
        assert re.search(re.escape(summary) + r"\n\n", text), f"{name}: no blank line after {summary}"
    assert text.count("<details") == text.count("</details>")


@pytest.mark.parametrize("name", TEXT)
def test_the_mathematics_renders(name):
    check_mathematics(name, TEXT[name])


@pytest.mark.parametrize("name", TEXT)
def test_an_equation_fits_a_phone(name):
    """358 pixels in type of 16 are some 43 ex, and the estimate is on average five per cent too wide."""
    for part in chapters.parse(TEXT[name]):
        if part.kind == "math":
            assert width(part.text) <= 45, f"{name}:{part.line}: {width(part.text):.0f} ex, break it at an = or a comma"


def test_the_estimate_of_a_width():
    """Beside MathJax 3.2's widths, in ex."""
    for tex, mathjax in (
        (r"y_{kj} = \sum_i x_{ki} W_{ij} + b_j", 20.4),
        (r"\frac{\partial y}{\partial a} = \frac{e^{-a}}{(1 + e^{-a})^2} \cdot \text{sigmoid}(c)", 29.4),
        (r"\begin{aligned} a &= [x, h] \, W + b, \\ abc &= d \qquad \text{(5.1)} \end{aligned}", 18.1),
        (r"i = \text{sigmoid}(a_i), \quad f = \text{sigmoid}(a_f), \quad o = \text{sigmoid}(a_o)", 53.0),
    ):
        assert width(tex) == pytest.approx(mathjax, rel=0.15), tex


# Equations: one number in chapter, docstring and code.


def equations(name, text):
    """The numbered equations of a chapter, TeX by number. Raises AssertionError for a number that is out of order."""
    found = {}
    for chapter, number, formula in NUMBERED.findall(text):
        key = f"{chapter}.{number}"
        ending = NUMBER.search(formula)
        assert ending and ending[1] == key, f"{name}: the anchor says {key}, the equation not"
        assert int(chapter) == int(name[:2]) and int(number) == len(found) + 1, f"{name}: {key} is out of order"
        found[key] = formula
    assert text.count(r"\qquad \text{(") == len(found), f"{name}: a number without its anchor"
    return found


def all_equations():
    return {key: tex for path in CHAPTERS for key, tex in equations(path.name, TEXT[path.name]).items()}


def check_cited(where, text, known):
    for key in CITED.findall(text):
        assert key in known, f"{where} speaks of ({key}), which no chapter has"


def test_a_number_that_is_cited_exists():
    known = all_equations()
    for name, text in TEXT.items():
        check_cited(name, prose(text) + python(text), known)
    for path in (ROOT / "minidraw").rglob("*.py"):
        check_cited(path.name, path.read_text(encoding="utf-8"), known)


@by_program
def test_another_chapters_equation_is_a_link(path):
    for line in words(TEXT[path.name]).splitlines():
        for bare in re.findall(r"(?<![\w.\[])\((\d+)\.\d+\)", line):
            assert path.name.startswith(f"{int(bare):02}-") or line.startswith("#"), f"{path.name}: {line}"


def test_the_sheet_has_every_op_as_its_chapter_derives_it():
    known, sheet = all_equations(), TEXT["gradients.md"]
    formulas = [part.text for part in chapters.parse(sheet) if part.kind == "math"]
    listed = {NUMBER.search(formula)[1]: formula for formula in formulas}
    for key, formula in listed.items():
        assert formula == known[key], f"({key}) on the sheet is not that of its chapter"
    files = [*(ROOT / "minidraw" / "ops").glob("*.py"), TUTORIAL / "darn.py"]  # chapter 19's bits live beside it
    in_ops = "".join(path.read_text(encoding="utf-8") for path in files)
    for key in listed:
        assert f"({key})" in in_ops, f"({key}) is on the sheet, but no op says that it computes it"
    library = "".join(path.read_text(encoding="utf-8") for path in files[:-1])
    for key in set(CITED.findall(library)) - set(listed):
        assert f"[({key})]" in sheet, f"an op computes ({key}), and the sheet neither shows it nor leads to it"


def test_every_op_names_its_chapter():
    titles = {int(path.name[:2]) for path in CHAPTERS}
    for name in ops.__all__:
        module = importlib.import_module(getattr(ops, name).on_arrays.__module__)
        named = re.findall(r"[Cc]hapters? (\d+)", (getattr(ops, name).__doc__ or "") + module.__doc__)
        assert named and {int(number) for number in named} <= titles, name
    assert "Chapter 3" in elementary.__doc__


# Links, figures, blocks, exercises.


def check_links(name, text):
    for target in LINK.findall(words(text)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        page = (TUTORIAL / file) if file else TUTORIAL / name
        said = re.search(rf"\[(?:[Cc]hapter )(\d+)[^\]]*\]\({re.escape(target)}\)", text)
        assert not said or int(said[1]) == int(page.name[:2]), f"{name}: chapter {said[1]} leads to {target}"
        assert page.exists(), f"{name} links to {target}, which is not there"
        if anchor:
            text_there = page.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.*)$", text_there, re.MULTILINE)
            titles = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]  # as GitHub does
            assert anchor in titles or f'<a id="{anchor}">' in text_there, f"{name}: no {anchor} in {page.name}"
    for image in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text):
        assert (TUTORIAL / image[1]).exists(), f"{name} shows {image[1]}, which is not there"
        assert len(image[0]) > 20, f"{name}: say in words what {image[1]} shows"


@pytest.mark.parametrize("name", TEXT)
def test_links_lead_somewhere(name):
    check_links(name, TEXT[name])


def test_no_figure_is_left_over():
    shown = {image for text in TEXT.values() for image in re.findall(r"\(figures/([^)]+)\)", text)}
    assert shown == {path.name for path in (TUTORIAL / "figures").iterdir()}


def test_the_runs_are_small_and_say_who_made_them():
    runs = [*(TUTORIAL / "runs").glob("*.npz"), *(TUTORIAL / "runs").glob("*.json")]
    assert sum(path.stat().st_size for path in runs) < 20e6
    for path in (TUTORIAL / "runs").glob("*.json"):
        _, script, *names = json.loads(path.read_text(encoding="utf-8"))["command"].split()
        name, _, seed = path.stem.partition("-seed-")
        assert (ROOT / script).exists() and name in (*names, Path(script).stem)
        assert not seed or "--seed" in names and names[names.index("--seed") + 1] == seed


@by_program
def test_blocks_fit_a_screen_and_import_nothing_private(path):
    for part in chapters.parse(TEXT[path.name]):
        if part.kind == "python":
            assert part.text.count("\n") < SCREEN, f"{path.name}:{part.line} is longer than a screen"
            assert not re.search(r"(import|from) +(\w+\.)*_\w", part.text), f"{path.name}:{part.line}"
            assert all(len(line) <= 120 for line in part.text.splitlines()), f"{path.name}:{part.line}"


@by_name
def test_exercises_have_a_stub_that_fails_and_a_solution(path):
    """That the stub fails, and the solution passes the same check, is what running the chapter shows."""
    text = TEXT[path.name]
    if "\n## Exercises\n" not in text:
        pytest.fail("no exercises")
    section = text.split("\n## Exercises\n")[1]
    number = section.count("**Exercise ")
    assert number >= 2 and section.count("<summary>Solution</summary>") == number
    blocks = [part for part in chapters.parse(section) if part.kind == "python"]
    for check in re.findall(r"def (check_\w+)\(", section):
        uses = [part for part in blocks if re.search(rf"^{check}\(", part.text, re.MULTILINE)]
        assert ["raises-exception" in part.info for part in uses] == [True, False], f"{path.name}: {check}"


def test_a_quotation_says_what_it_is(tmp_path):
    name = "05-how-does-an-lstm-step-flow-backward.md"
    assert '<summary><code>lstm</code>, quoted from <a href="../minidraw/ops/lstm.py">' in TEXT[name]
    for old, new in (
        (">minidraw/ops/lstm.py</a>", ">minidraw/ops/gru.py</a>"),
        ("<details>\n<summary><code>", "<code>"),
    ):
        path = tmp_path / name
        quotation = TEXT[name][TEXT[name].index("<!-- quote minidraw/ops/lstm.py lstm -->") :]
        path.write_text(quotation[: quotation.index("</details>") + 11].replace(old, new, 1), encoding="utf-8")
        with pytest.raises(AssertionError, match="refresh|folded"):
            chapters.run(path)


@by_program
def test_a_notebook_has_the_same_code_and_mathematics_that_jupyter_renders(path):
    nbformat = pytest.importorskip("nbformat")
    book = chapters.notebook(path)
    nbformat.validate(nbformat.from_dict(book))
    code = [cell["source"] for cell in book["cells"] if cell["cell_type"] == "code"]
    markdown = [cell["source"] for cell in book["cells"] if cell["cell_type"] == "markdown"]
    unfolded = re.sub(r"<details.*?</details>", "", TEXT[path.name], flags=re.DOTALL)
    blocks = [part.text for part in chapters.parse(unfolded) if part.kind == "python"]
    assert [c.removesuffix("\nfigure") for c in code] == blocks and len(set(blocks)) > 5
    assert not any("```math" in text or "$`" in text or re.search(r"\]\(\d\d-[^)]*\.md", text) for text in markdown)
    folds = [text for text in markdown if "<details" in text]  # a solution is a cell of its own, folded and not run
    assert len(folds) == TEXT[path.name].count("<details") > 0
    assert all(re.fullmatch(r"<details.*</details>", text, re.DOTALL) for text in folds)


# A bad edit is caught.


def tampered(tmp_path, name, old, new):
    """A copy of a chapter with one edit, in a folder that looks like the tutorial."""
    text = TEXT[name]
    assert text.count(old) >= 1, f"{old!r} is not in {name}"
    path = tmp_path / name
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("03-what-does-broadcasting-undo.md", "return dy @ W.T, x.T @ dy", "return -dy @ W.T, x.T @ dy"),
        ("03-what-does-broadcasting-undo.md", "    gradient = gradient.sum(", "    gradient = gradient.mean("),
        ("03-what-does-broadcasting-undo.md", "396 pairs", "386 pairs"),
        ("03-what-does-broadcasting-undo.md", "a, b = np.array([[10.0]", "a, b = np.array([[12.0]"),
    ],
    ids=["a sign in a block", "a quoted line", "a printed number", "what a figure shows"],
)
def test_a_bad_edit_is_caught(tmp_path, name, old, new):
    with pytest.raises(AssertionError):
        chapters.run(tampered(tmp_path, name, old, new))


def test_a_changed_figure_function_is_caught(monkeypatch):
    original = plots.tables
    monkeypatch.setattr(plots, "tables", lambda arrays: original({k: v for k, v in arrays.items() if k != " +"}))
    with pytest.raises(AssertionError, match="03-stretch.png"):
        chapters.run(TUTORIAL / "03-what-does-broadcasting-undo.md")


def test_a_wrong_number_and_a_wrong_link_are_caught():
    name = "03-what-does-broadcasting-undo.md"
    with pytest.raises(AssertionError):
        equations(name, TEXT[name].replace(r"\text{(3.4)}", r"\text{(3.9)}"))
    with pytest.raises(AssertionError):
        equations(name, TEXT[name].replace('id="eq-3-4"', 'id="eq-3-9"'))
    with pytest.raises(AssertionError):
        check_cited(name, TEXT[name].replace("by (3.3)", "by (3.33)"), all_equations())
    with pytest.raises(AssertionError):
        check_links(name, TEXT[name].replace("](04-why", "](05-why"))
    with pytest.raises(AssertionError):
        check_links(name, TEXT[name].replace("](04-why-logits.md)", "](02-how-do-gradients-add-up.md)"))
    for good, bad in [
        ("$`y = a", "$y = a"),
        ("$`y = a", "$`y\n= a"),
        ("**Copying", "**$`x`$ copying"),
        ("```math\nda_k", "```math\n\\tag{1} da_k"),
        ("## Stretching", "## $`x`$"),
    ]:
        with pytest.raises(AssertionError):
            check_mathematics(name, TEXT[name].replace(good, bad, 1))


# What an exercise says to an answer.


def test_expect_names_the_first_wrong_index(capsys):
    exercises.expect([1.0, 2.0], [1.0, 2.0], "two numbers")
    assert capsys.readouterr().out == "two numbers: right\n"
    with pytest.raises(AssertionError, match=r"at index \[1, 0\]: 5, and it should be 3"):
        exercises.expect([[1, 2], [5, 9]], [[1, 2], [3, 4]])
    with pytest.raises(AssertionError, match=r"shape \(2,\), and it should be \(3,\)"):
        exercises.expect([1, 2], [1, 2, 3])
    with pytest.raises(AssertionError, match="nothing came back"):
        exercises.expect(None, 1)
    with pytest.raises(AssertionError, match="nan"):
        exercises.expect(np.nan, 1)


def test_expect_gradients_names_the_input():
    def op(a, b):
        return a * b, lambda dy: (dy * b, dy * b)

    with pytest.raises(AssertionError, match="the gradient of b at index"):
        exercises.expect_gradients(op, {"a": np.arange(3.0), "b": np.arange(1.0, 4.0)})
    with pytest.raises(AssertionError, match="1 gradients for 2 inputs"):
        exercises.expect_gradients(lambda a, b: (a * b, lambda dy: dy * b), {"a": np.ones(2), "b": np.ones(2)})


def test_the_front_page_leads_into_chapter_0():
    assert "](tutorial/00-what-does-draw-do.md)" in (ROOT / "README.md").read_text("utf-8")
