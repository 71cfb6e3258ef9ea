"""The tutorial as a book: a site, an e-book (EPUB) and, where a browser is found, a PDF.

The Markdown stays the source. `stage` lays out an ordinary Sphinx project in a temporary folder: the chapters, with
what GitHub understands and Sphinx does not rewritten; conf.py, style.css and api.md from here; a subset of a font. Then
Sphinx makes the book of it. In a chapter, a comment

    <!-- try tab=look&digit=7&t=4&seed=3: Words. -->

which GitHub does not show, is the page of `minidraw page` at that state, folded below the words; the first is open.
"""

import functools
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path, PurePosixPath

import chapters
from fontTools import subset
from sphinx.cmd.build import build_main

import minidraw
from minidraw import page
from minidraw.images import mnist_labels

HERE = Path(__file__).resolve().parent
TUTORIAL = HERE.parent
ROOT = TUTORIAL.parent
PROJECT = {  # pages of the site that are no part of the tutorial
    "README.md": "minidraw.md",
    "CONTRIBUTING.md": "contributing.md",
    "tests/benchmarks/gpu.md": "gpu.md",
    "tests/benchmarks/results.md": "peers.md",
}
API = {"minidraw": "api.html"} | {f"minidraw/{name}": "api.html" for name in ("ops", "page_assets")}
SITE, EPUB, PAPER = "site", "epub", "paper"
BROWSERS = [
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge"),
    *(f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Chromium", "Google Chrome", "Microsoft Edge")),
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
]
LETTERS = [  # of the font for mathematics: Latin, Greek, arrows, operators, brackets, italics
    *((0x20, 0xFF), (0x370, 0x3FF), (0x2010, 0x2064), (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2308, 0x230B)),
    *((0x239B, 0x23B9), (0x23DC, 0x23E1), (0x27E8, 0x27E9), (0x1D400, 0x1D467), (0x1D6FC, 0x1D71B), (0x210E, 0x210E)),
]


def parts():
    """The parts of the book, as the front page's table has them: title and chapters."""
    table = re.findall(r"^\| (.+?) \| (\[\d+ .+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {title: re.findall(r"\(tutorial/(\d\d-[\w-]+)\.md\)", row) for title, row in table}


def symbols():
    """The symbols of notation.md, without their index t: TeX to the number of its row."""
    rows = re.findall(r"^\| (\$`.+?`\$) \|", (TUTORIAL / "notation.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {
        tex.removesuffix("_t"): number
        for number, row in reversed([*enumerate(rows)])
        for tex in row.strip("$`").split(", ")
    }


def target(link, page, kind):
    """Where a link of the file `page` (a path from ROOT) leads in the book; None for nowhere."""
    file, mark, anchor = link.partition("#")
    if not file or ":" in file:
        return link
    path = os.path.normpath(PurePosixPath(page).parent / file).replace(os.sep, "/")
    inside = path.removeprefix("tutorial/")
    if path == "tutorial/README.md":
        return f"index.md{mark}{anchor}"
    if path.startswith("tutorial/") and (path.endswith(".md") or inside.startswith("figures/")):
        return inside + mark + anchor
    if path.startswith(".github/"):
        return f"figures/{Path(path).name}"
    if kind != SITE:
        return None
    if path in PROJECT:
        return PROJECT[path] + mark + anchor
    if path.startswith("minidraw"):
        return API.get(path) or f"_modules/{path.removesuffix('.py')}.html"
    return "files/runs.zip" if inside == "runs" else f"files/{Path(path).name}"


def links(text, page, kind):
    """The text of `page` with its links as those of the book; what the book has not is no link. Code stays as it is."""

    def markdown(found):
        if found[3] is None:  # code
            return found[0]
        to = target(found[3], page, kind)
        if to is None:
            return found[2]
        if found[1] or ".md" in to or not to.startswith(("files/", "_modules/", "api.html")):
            return f"{found[1]}[{found[2]}]({to})"
        return f'<a href="{to}">{found[2]}</a>'

    def html(found):
        to = target(found[1], page, kind)
        return found[2] if to is None else f'<a href="{to.replace(".md", ".html")}">{found[2]}</a>'

    text = re.sub(r'<a href="([^"]+)">(.*?)</a>', html, text)
    code = r"^(?:> )?```.*?^(?:> )?```$|`[^`\n]*`"
    return re.sub(rf"{code}|(!?)\[([^\]]*)\]\(([^)\s]+)\)", markdown, text, flags=re.DOTALL | re.MULTILINE)


def tries(text, kind):
    """The comments `<!-- try STATE: WORDS -->` as the page at that state, or gone."""
    opened = iter([" open"])

    def fold(found):
        state, words = found[1], " ".join(found[2].split())
        return (
            f'<details class="try"{next(opened, "")}>\n<summary><b>Try this.</b> {words}</summary>\n'
            f'<iframe src="page.html#{state}" title="The model, to touch: {words}" loading="lazy"></iframe>\n'
            f'<p><a href="page.html#{state}">The same on a page of its own</a></p>\n</details>\n'
        )

    return re.sub(r"<!-- try (\S+): (.*?) -->\n", fold if kind == SITE else "", text, flags=re.DOTALL)


def first_uses(text, known):
    """A chapter in which the first use of each symbol leads to its line in the notation."""
    fresh = dict(known)

    def link(found):
        number = fresh.pop((found[2] or "").removesuffix("_t"), None)
        return found[0] if number is None else f"[{found[0]}](notation.md#symbol-{number})"

    skip = r"^```.*?^```$|^#.*?$|^\|.*?$|\[[^\]]*\]\([^)]*\)|<summary>.*?</summary>"
    return re.sub(rf"({skip})|\$`([^`]+)`\$", link, text, flags=re.DOTALL | re.MULTILINE)


def chapter(text, path, kind):
    """What only a chapter has: its downloads, the page to try things on, first uses, and no foot: the theme has one."""
    name = path.stem
    downloads = (
        f'<p class="downloads">This chapter to run: <a href="files/{name}.ipynb" download>a notebook</a>, or '
        f'<a href="files/{name}.py" download>one Python file</a> (<a href="index.html#how-to-read-a-chapter">how</a>)'
        "</p>\n\n"
    )
    text = re.sub(r"^\*As a notebook: .*?\*\n\n", downloads if kind == SITE else "", text, flags=re.DOTALL | re.M)
    text = re.sub(r"\n---\n\n[^\n]*\[contents\]\(index\.md\)[^\n]*\n$", "\n", text)
    return first_uses(tries(text, kind), symbols())


def index(text, kind, pdf):
    """The first page: what can be taken along, and the contents."""
    along = ['<a href="page.html">the model as a page to touch</a>', '<a href="minidraw.epub">an e-book</a>']
    along += ['<a href="minidraw.pdf">a PDF</a>'] if pdf else []
    if kind == SITE:
        text = text.replace("\n\n", f'\n\n<p class="downloads">To take along: {", ".join(along)}.</p>\n\n', 1)
    others = [path.stem for path in sorted(TUTORIAL.glob("*.md")) if path not in chapters.paths()]
    groups = parts() | {"Beside them": [name for name in others if name != "README"]}
    if kind == SITE:
        groups["The project"] = ["minidraw", "api", "contributing", "On a GPU <gpu>", "Beside PyTorch and JAX <peers>"]
    tree = "```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```\n"
    return text + "".join("\n" + tree.format(title, "\n".join(names)) for title, names in groups.items())


def stage(folder, kind, pdf=False):
    """Lay the Sphinx project for one `kind` of book into a folder; `pdf` is whether the site has one to offer."""
    for made in ("_static", "_extra/files"):
        (folder / made).mkdir(parents=True)
    shutil.copytree(TUTORIAL / "figures", folder / "figures")
    shutil.copy(HERE / "conf.py", folder)
    for name in ("style.css", "screen.css", "icon.svg"):
        shutil.copy(HERE / name, folder / "_static")
    (folder / "_static" / "mathematics.woff").write_bytes(math_font())
    for path in sorted(TUTORIAL.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        text = links(text, f"tutorial/{path.name}", kind)
        text = chapter(text, path, kind) if path in chapters.paths() else text
        text = index(text, kind, pdf) if path.name == "README.md" else text
        if path.name == "notation.md":
            head, *rows = re.split(r"^\| (?=\$`)", text, flags=re.MULTILINE)
            text = head + "".join(f'| <a id="symbol-{k}"></a>{row}' for k, row in enumerate(rows))
        text = re.sub(r"<details(?: open)?>", '<details open="open">', text) if kind == PAPER else text
        text = text.replace("<details open>", '<details open="open">')  # well-formed XML, for the e-book
        name = "index.md" if path.name == "README.md" else path.name
        (folder / name).write_text(text, encoding="utf-8")
    for picture in (ROOT / ".github").glob("*.[gp][in][fg]"):
        shutil.copy(picture, folder / "figures")
    if kind == SITE:
        project(folder)


def project(folder):
    """What only the site has: the project's own pages, the API, the files to download, the page to touch."""
    shutil.copy(HERE / "api.md", folder)
    for source, name in PROJECT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = re.sub(r'<h1 align="center">(.*?)</h1>', r"# \1", text)
        text = re.sub(r'<p align="center"><img src="(\S+)"[^>]*?alt="([^"]*)"></p>', r"![\2](\1)", text)
        (folder / name).write_text(links(text, source, SITE), encoding="utf-8")
    to = folder / "_extra" / "files"
    for path in chapters.paths():
        (to / f"{path.stem}.ipynb").write_text(json.dumps(chapters.notebook(path), indent=1) + "\n", encoding="utf-8")
        (to / f"{path.stem}.py").write_text(chapters.script(path), encoding="utf-8")
    for path in [*TUTORIAL.glob("*.py"), *(TUTORIAL / "runs").glob("*.py"), ROOT / "LICENSE"]:
        shutil.copy(path, to)
    shutil.make_archive(str(to / "runs"), "zip", TUTORIAL, "runs")
    html = page.page(minidraw.load(), minidraw.mnist().test, mnist_labels("test"))
    (folder / "_extra" / "page.html").write_text(html, encoding="utf-8")


@functools.cache
def math_font():
    """The letters of STIX Two Math (SIL Open Font License) that mathematics needs, as a font of the web: bytes."""
    options = subset.Options(flavor="woff", layout_features=["*"])
    font = subset.load_font(str(files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[letter for first, last in LETTERS for letter in range(first, last + 1)])
    subsetter.subset(font)
    out = io.BytesIO()
    subset.save_font(font, out, options)
    return out.getvalue()


def sphinx(builder, source, target):
    if build_main(["-q", "-b", builder, "-d", str(source / ".doctrees"), str(source), str(target)]):
        raise SystemExit(f"Sphinx has not made the {builder}: see above")


def print_pdf(browsers, html, path):
    """Print a page with the first browser that can. Says in a line what went wrong."""
    root = ["--no-sandbox"] * (hasattr(os, "geteuid") and os.geteuid() == 0)
    options = ["--headless=new", "--disable-gpu", *root, "--no-pdf-header-footer", "--generate-pdf-document-outline"]
    for browser in browsers:
        command = [browser, *options, f"--print-to-pdf={path}", html.as_uri()]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=300)
        except subprocess.TimeoutExpired:
            print(f"no PDF by {browser}: not printed within five minutes")
        except (subprocess.SubprocessError, OSError) as error:
            print(f"no PDF by {browser}: {error}")
        if path.exists():
            return
    print("no PDF: no browser printed it")


def build(folder):
    """Make the book in `folder`: index.html, minidraw.epub and, with a browser, minidraw.pdf."""
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / "searchindex.js").exists():
        raise SystemExit(f"{folder} holds something else: name a new folder, an empty one, or that of an older book")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for kind in (EPUB, PAPER, SITE):
            (scratch / kind).mkdir()
        epub, pdf = scratch / "epub.out" / "minidraw.epub", scratch / "minidraw.pdf"
        with ThreadPoolExecutor(1) as beside:
            if browsers := list(filter(None, map(shutil.which, BROWSERS))):
                stage(scratch / PAPER, PAPER)
                sphinx("singlehtml", scratch / PAPER, scratch / "paper.out")
                printing = beside.submit(print_pdf, browsers, scratch / "paper.out" / "index.html", pdf)
            else:
                print("no PDF: no Chromium, Chrome or Edge was found to print it")
            stage(scratch / EPUB, EPUB)
            sphinx("epub", scratch / EPUB, epub.parent)
            if browsers:
                printing.result()
        made = [epub] + [pdf] * pdf.exists()
        stage(scratch / SITE, SITE, pdf=pdf in made)
        sphinx("html", scratch / SITE, folder)
        (folder / "minidraw.pdf").unlink(missing_ok=True)  # that of an older book
        for path in made:
            shutil.copy(path, folder)
    print(folder / "index.html")
