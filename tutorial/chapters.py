"""A chapter as a program: run it, keep what it quotes and shows up to date, open it as a notebook.

    python tutorial/chapters.py notebook 5        writes 05-....ipynb, to be opened in Jupyter
    python tutorial/chapters.py run 5             runs a chapter, and compares outputs, figures and quoted source
    python tutorial/chapters.py refresh 5 10      runs chapters, and rewrites outputs, figures and quoted source
    python tutorial/chapters.py site FOLDER       makes a site to read, an e-book and a PDF (pip install -e '.[site]')

The page of practice is treated likewise: `practice` in place of a number. A chapter is plain Markdown. Its fences mean:

    ```python       is run, all of a chapter in one namespace; tags=["raises-exception"] where it has to fail
    > ```text       right after it, is what it printed
    ```py           is quoted from the library, below a comment <!-- quote FILE NAME -->, and not run
    ```math         is an equation

and a .png below a block shows what the variable `figure` holds there. The tests compare all of these. A quotation is
folded: the line that says what it is and where it stands is made by `refresh`. Diagrams, which are SVG, do not come
from a chapter's code but from diagrams.py.
"""

import argparse
import ast
import contextlib
import io
import json
import os
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
IMAGE = re.compile(r"^!\[(.*)\]\((figures/.*\.png)\)$")
QUOTE = re.compile(r"^<!-- quote (\S+) (\S+) -->$")
FOLD = re.compile(r"<details( open)?>\n<summary>.*</summary>\n")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
NOISE = 1e-6  # smaller numbers that a chapter prints are rounding errors: another machine has others


@dataclass
class Part:
    """A piece of a chapter: prose (kind ""), a fence (kind is its language), a picture ("image") or a "quote"."""

    kind: str
    text: str  # of a fence: what it holds, without the marks
    line: int  # of its first line of text, counted from 1
    info: str = ""  # what stands behind the language; of an image its file; of a quote the file and the name


def paths():
    """The chapters, in order."""
    return sorted(HERE.glob("[0-9][0-9]-*.md"))


def programs():
    """The pages that are programs, by what the command line calls them: the chapters, and the page of practice."""
    return {str(int(path.name[:2])): path for path in paths()} | {"practice": HERE / "practice.md"}


def parse(markdown):
    """The Parts of a chapter, in order."""
    parts, prose, lines = [], [], markdown.splitlines()

    def end_prose(at):
        if prose:
            parts.append(Part("", "\n".join(prose), at - len(prose) + 1))
            prose.clear()

    at = 0
    while at < len(lines):
        fence = re.match(r"^(> )?```(\w+)(.*)$", lines[at])
        if fence:
            end_prose(at)
            mark = fence[1] or ""  # what is printed stands in a block quote
            assert f"{mark}```" in lines[at:], f"line {at + 1}: this fence is never closed"
            close = lines.index(f"{mark}```", at)
            text = "\n".join(line[len(mark) :] for line in lines[at + 1 : close])
            parts.append(Part(fence[2], text, at + 2, fence[3].strip()))
            at = close
        elif image := IMAGE.match(lines[at]):
            end_prose(at)
            parts.append(Part("image", image[1], at + 1, image[2]))
        elif quote := QUOTE.match(lines[at]):
            end_prose(at)
            parts.append(Part("quote", lines[at], at + 1, f"{quote[1]} {quote[2]}"))
        else:
            prose.append(lines[at])
        at += 1
    end_prose(at)
    return parts


def unparse(parts):
    """The chapter again: the reverse of parse."""
    texts = []
    for part in parts:
        if part.kind == "image":
            texts.append(f"![{part.text}]({part.info})")
        elif part.kind in ("", "quote"):
            texts.append(part.text)
        else:
            fence = f"```{part.kind}{' ' * bool(part.info)}{part.info}\n{part.text}\n```".split("\n")
            texts += [f"> {line}" if line else ">" for line in fence] if part.kind == "text" else fence
    return "\n".join(texts) + "\n"


def source(file, name):
    """The source of a function or class `name` (dots lead inwards) in a file of the repository, from its margin."""
    text = (HERE.parent / file).read_text(encoding="utf-8")
    node = ast.parse(text)
    for part in name.split("."):
        kinds = ast.FunctionDef, ast.ClassDef
        node = next((child for child in ast.walk(node) if isinstance(child, kinds) and child.name == part), None)
        assert node is not None, f"{file} has no {name}"
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def fold(file, name, opened):
    """What stands between the comment of a quotation and its code: the visible line, and the beginning of its fold."""
    line = f'<code>{name}</code>, quoted from <a href="../{file}">{file}</a>: not to be run'
    return f"<details{' open' * opened}>\n<summary>{line}</summary>\n"


def numbers(figure):
    """What a figure shows: its words, and of each artist how many numbers, their mean, spread, ends, and order."""
    words, summaries = [], []
    for axes in figure.axes:
        words += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
        words += [artist.get_label() for artist in axes.lines if not artist.get_label().startswith("_")]
        arrays = [line.get_xydata() for line in axes.lines] + [image.get_array() for image in axes.images]
        arrays += [collection.get_offsets() for collection in axes.collections]
        arrays += [patch.get_extents().bounds for patch in axes.patches]
        for array in arrays:
            array = np.asarray(array, dtype=float)
            array = array[np.isfinite(array)]
            order = np.linspace(-1, 1, array.size)  # so that what changes places shows
            about = [array.mean(), array.std(), array.min(), array.max(), array @ order] if array.size else []
            summaries.append([array.size, *(float(f"{number:.6g}") for number in about)])
    return {"words": words, "numbers": summaries}


def save(figure, path):
    """Write a figure as PNG, with its numbers inside."""
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=200, metadata={"minidraw": json.dumps(numbers(figure)), "Software": None})


def compare_figures(figure, path):
    """Raise AssertionError if `figure` is not the one saved at `path`, but for rounding."""
    with Image.open(path) as image:
        saved = json.loads(image.text["minidraw"])
    found = json.loads(json.dumps(numbers(figure)))
    assert found["words"] == saved["words"], f"{path.name}: other words\n{found['words']}\n{saved['words']}"
    assert len(found["numbers"]) == len(saved["numbers"]), f"{path.name}: another number of artists"
    for k, (a, b) in enumerate(zip(found["numbers"], saved["numbers"], strict=True)):
        close = len(a) == len(b) and np.allclose(a, b, rtol=2e-3, atol=2e-3 * max(map(abs, b[1:]), default=0))
        assert close, f"{path.name}: artist {k} has {a}, the saved figure {b}"


def compare_outputs(found, wanted):
    """Raise AssertionError if a block printed something else, but for rounding in the third digit of a number."""
    assert NUMBER.sub("#", found) == NUMBER.sub("#", wanted), f"printed:\n{found}\nin the chapter:\n{wanted}"
    for a, b in zip(NUMBER.findall(found), NUMBER.findall(wanted), strict=True):
        small = max(abs(float(a)), abs(float(b))) < NOISE
        assert small or np.isclose(float(a), float(b), rtol=1e-2), f"{a} in\n{found}\nbut {b} in the chapter"


def run(path, refresh=False):
    """Run a chapter; compare what it prints, shows and quotes with what stands there, or rewrite it.

    Raises AssertionError, or what a block raises, with the chapter's file and line.
    """
    parts = parse(path.read_text(encoding="utf-8"))
    namespace, printed = {"__name__": "__main__"}, ""
    quoted = None  # the quotation that we are in
    before = Path.cwd()
    os.chdir(HERE)
    try:
        for part in parts:
            if part.kind == "python":
                printed = _execute(part, namespace, path)
            elif part.kind == "image" and refresh:
                save(namespace["figure"], HERE / part.info)
            elif part.kind == "image":
                compare_figures(namespace["figure"], HERE / part.info)
            elif part.kind == "quote":
                quoted = part
            elif quoted:  # its fold, and then its code
                folded = FOLD.fullmatch(part.text)
                assert folded or part.kind == "py", f"{path.name}:{part.line}: a quotation is folded: <details>"
                wanted = fold(*quoted.info.split(), bool(folded[1])) if folded else source(*quoted.info.split())
                stale = f"{path.name}:{part.line}: the source is another: chapters.py refresh"
                assert refresh or part.text == wanted, stale
                part.text = wanted
                quoted = quoted if folded else None
            elif part.kind == "text":
                if refresh:
                    part.text = printed
                else:
                    compare_outputs(printed, part.text)
    finally:
        os.chdir(before)
    if refresh:
        path.write_text(unparse(parts), encoding="utf-8", newline="\n")


def _execute(part, namespace, path):
    """Run a block; what it printed."""
    out = io.StringIO()
    code = compile("\n" * (part.line - 1) + part.text, str(path), "exec")
    with contextlib.redirect_stdout(out):
        if "raises-exception" in part.info:
            try:
                exec(code, namespace)
            except Exception as error:
                print(f"{type(error).__name__}: {error}")
            else:
                raise AssertionError(f"{path.name}:{part.line}: this block should fail, and did not")
        else:
            exec(code, namespace)
    return out.getvalue().rstrip("\n")


def notebook(path):
    """A chapter as a Jupyter notebook, a dict (nbformat 4.5): the mathematics as Jupyter renders it, no outputs.

    What is folded, a solution or a quotation, is a Markdown cell of its own, folded and not run.
    """
    cells, markdown, folded = [], "", False

    def end_markdown():
        nonlocal markdown
        if markdown.strip():
            cells.append({"cell_type": "markdown", "metadata": {}, "source": markdown.strip("\n")})
        markdown = ""

    for part in parse(path.read_text(encoding="utf-8")):
        if part.kind == "python" and not folded:
            end_markdown()
            tags = {"tags": ["raises-exception"]} if "raises-exception" in part.info else {}
            cells.append({"cell_type": "code", "metadata": tags, "source": part.text, "outputs": []})
        elif part.kind == "image" and part.info.endswith(".png") and not folded:  # the block above it shows it itself
            cells[-1]["source"] += "\nfigure"
        elif part.kind in ("python", "py"):
            markdown += f"```python\n{part.text}\n```\n"
        elif part.kind == "math":
            markdown += f"$$\n{part.text}\n$$\n"
        elif part.kind == "text" and folded or part.kind == "image":
            markdown += unparse([part])
        elif part.kind == "":
            for piece in re.split(r"(?=<details)|(?<=</details>)", part.text):
                if piece.startswith("<details"):
                    end_markdown()
                    folded = True
                text = re.sub(r"\$`(.*?)`\$", r"$\1$", piece, flags=re.DOTALL)
                markdown += re.sub(r"\]\((\d\d-[\w-]+)\.md", r"](\1.ipynb", text) + "\n"
                if "</details>" in piece:
                    end_markdown()
                    folded = False
    end_markdown()
    for number, cell in enumerate(cells):
        cell |= {"id": f"cell-{number}"} | ({"execution_count": None} if cell["cell_type"] == "code" else {})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def script(path):
    """A chapter as one Python file, in cells that editors know by `# %%`: prose as comments, folds included.

    It runs from top to bottom: a block that has to fail says how it fails.
    """
    pieces = []
    for cell in notebook(path)["cells"]:
        text = cell["source"]
        if cell["cell_type"] == "markdown":
            pieces.append("# %% [markdown]\n" + "\n".join(f"# {line}".rstrip() for line in text.splitlines()))
        elif "raises-exception" in cell["metadata"].get("tags", []):
            fails = f"try:\n{textwrap.indent(text, '    ')}\nexcept Exception as error:\n"
            pieces.append(f'# %%\n{fails}    print(f"{{type(error).__name__}}: {{error}}")')
        else:
            pieces.append(f"# %%\n{text}")
    return "\n\n".join(pieces) + "\n"


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    tasks = parser.add_subparsers(dest="task", required=True)
    for task in ("run", "refresh", "notebook"):
        tasks.add_parser(task).add_argument("chapters", nargs="*", help="their numbers, or practice (all)")
    tasks.add_parser("site").add_argument("folder", help="where the book goes: new, empty, or that of an older one")
    arguments = parser.parse_args()
    if arguments.task == "site":
        try:
            from book.build import build
        except ImportError as error:
            raise SystemExit(f"{error}: the site needs more packages, pip install -e '.[site]'") from None
        build(arguments.folder)
        return
    by_name = programs()
    for name in arguments.chapters:
        if name not in by_name:
            parser.error(f"there is no chapter {name}: there are {', '.join(by_name)}")
    for path in [by_name[name] for name in arguments.chapters or by_name]:
        if arguments.task == "notebook":
            target = path.with_suffix(".ipynb")
            if target.exists():
                print(f"{target} is there already, and may hold your answers: rename or delete it first")
                continue
            target.write_text(json.dumps(notebook(path), indent=1) + "\n", encoding="utf-8")
            print(target)
        else:
            print(path.name, flush=True)
            run(path, refresh=arguments.task == "refresh")


if __name__ == "__main__":
    main()
