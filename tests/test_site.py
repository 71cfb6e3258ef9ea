"""The tutorial as a book: links and equation numbers lead somewhere, nothing is fetched, what is promised is there."""

import html
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "tutorial"
CHAPTERS = sorted(TUTORIAL.glob("[0-9][0-9]-*.md"))
PRE = re.compile(r"<pre[^>]*>(.*?)</pre>", re.DOTALL)
NEEDED = "sphinx", "myst_parser", "furo", "math_core", "ziamath", "fontTools"
MISSING = [name for name in NEEDED if not importlib.util.find_spec(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not here: {', '.join(MISSING)}; pip install -e '.[site]'"),
]


class Page(HTMLParser):
    """What a page fetches, where its links lead, and the anchors it has."""

    def __init__(self, path):
        super().__init__()
        self.fetched, self.links, self.anchors = [], [], set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        if tag == "a":
            self.links.append(attributes.get("href") or "")
        elif tag == "link" and attributes.get("rel") in ("search", "next", "prev", "index", "canonical"):
            self.links.append(attributes["href"])
        else:
            self.fetched += [attributes[name] for name in ("src", "href", "data") if attributes.get(name)]


@pytest.fixture(scope="module")
def pages(book):
    return {path.relative_to(book).as_posix(): Page(path) for path in book.rglob("*.html")}


def broken(pages, book):
    """The links of the pages that lead nowhere."""
    for name, page in pages.items():
        for link in page.links + page.fetched:
            if re.match(r"https?:|mailto:|data:", link):
                continue
            file, anchor = urldefrag(link)
            path = os.path.normpath(
                os.path.join(os.path.dirname(name), unquote(file.partition("?")[0]) or os.path.basename(name))
            )
            if not (book / path).is_file():
                yield name, link
            elif anchor and path.endswith(".html") and path != "page.html" and anchor not in pages[path].anchors:
                yield name, link


def test_every_link_leads_somewhere(pages, book):
    assert list(broken(pages, book)) == []


def test_a_broken_link_is_found(pages, book, tmp_path):
    path = tmp_path / "x.html"
    path.write_text('<a href="index.html#no-such-place"></a><a href="nowhere.html"></a><img src="no.png">')
    found = list(broken({**pages, "x.html": Page(path)}, book))
    assert [link for name, link in found if name == "x.html"] == ["index.html#no-such-place", "nowhere.html", "no.png"]


def test_nothing_is_fetched_from_outside(pages, book):
    outside = [(name, url) for name, page in pages.items() for url in page.fetched if re.match(r"(https?:)?//", url)]
    assert outside == []
    for path in book.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_every_equation_has_its_anchor_and_its_links(pages):
    for path in CHAPTERS:
        page, text = pages[f"{path.stem}.html"], path.read_text(encoding="utf-8")
        anchors = re.findall(r'<a id="(eq-\d+-\d+)"></a>', text)
        assert set(anchors) <= page.anchors
        assert page.text.count("<math") == text.count("$`") + text.count("```math"), path.name
        assert "$`" not in page.text and "```" not in page.text, path.name
        for anchor in anchors:
            assert f"{path.stem}.html#{anchor}" in page.links or f"#{anchor}" in page.links, anchor
    leads = pages["_modules/minidraw/ops/lstm.html"].links
    assert any(link.endswith("05-how-does-an-lstm-step-flow-backward.html#eq-5-6") for link in leads)


def test_code_is_shown_as_it_is(pages):
    for path in [*CHAPTERS, TUTORIAL / "practice.md"]:
        shown = {
            html.unescape(re.sub("<.*?>", "", pre)).strip() for pre in PRE.findall(pages[f"{path.stem}.html"].text)
        }
        fences = re.findall(r"^```py.*?\n(.*?)\n```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        assert [code for code in fences if code.strip() not in shown] == [], path.name


def test_a_symbol_leads_to_the_notation_at_its_first_use_only(pages):
    notation = (TUTORIAL / "notation.md").read_text(encoding="utf-8")
    rows_before = re.findall(r"^\| \$`", notation.partition("| $`i, f, o, g`$")[0], re.MULTILINE)
    links = pages["05-how-does-an-lstm-step-flow-backward.html"].links
    to_notation = [link for link in links if link.startswith("notation.html#symbol-")]
    gates = "notation.html#symbol-" + str(len(rows_before))
    assert to_notation.count(gates) == 4  # i, f, o and g, once each


def test_links_can_be_read_out(pages):
    """Axe-core says the same where a browser is at hand: a formula alone is no name, and what opens holds no link."""
    formulas = summaries = 0
    for name, page in pages.items():
        for attributes in re.findall(r"<a ([^>]*)>\s*(?:<span[^>]*>\s*)*<math", page.text):
            formulas += 1
            assert 'aria-label="' in attributes, name
        for summary in re.findall(r"<summary>.*?</summary>", page.text, re.DOTALL):
            summaries += 1
            assert "<a " not in summary, name
    assert formulas and summaries


def test_the_api_shows_defaults_as_they_are_written(pages):
    text = html.unescape(re.sub("<.*?>", "", pages["api.html"].text))
    assert "dtype='float32', xp=np)" in text and "site-packages" not in text


def test_it_can_be_searched(book):
    index = (book / "searchindex.js").read_text(encoding="utf-8")
    terms = json.loads(re.search(r"^Search\.setIndex\((.*)\)$", index)[1])
    found = [set(terms["terms"][word]) for word in ("forget", "gate")]
    assert any("LSTM" in terms["titles"][k] for k in found[0] & found[1])


def test_every_chapter_downloads_as_a_notebook_and_as_a_file(book, pages):
    for path in CHAPTERS:
        assert {f"files/{path.stem}.ipynb", f"files/{path.stem}.py"} <= set(pages[f"{path.stem}.html"].links)
        assert json.loads((book / "files" / f"{path.stem}.ipynb").read_text(encoding="utf-8"))["nbformat"] == 4
        code = (book / "files" / f"{path.stem}.py").read_text(encoding="utf-8")
        compile(code, path.name, "exec")
        assert "# %% [markdown]" in code and "try:\n" in code


def test_a_downloaded_file_runs(book):
    done = subprocess.run(
        [sys.executable, book / "files" / "03-what-does-broadcasting-undo.py"],
        capture_output=True,
        text=True,
        cwd=TUTORIAL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0 and "AssertionError: " in done.stdout, done.stderr


def test_the_page_is_there_at_a_state(pages):
    for path in CHAPTERS:
        tries = re.findall(r"<!-- try (\S+): ", path.read_text(encoding="utf-8"))
        frames = [url for url in pages[f"{path.stem}.html"].fetched if url.startswith("page.html#")]
        assert frames == [f"page.html#{state}" for state in tries]
        assert len(tries) >= (int(path.name[:2]) in (0, 10, 11, 13))


def test_the_e_book_is_well_formed(book):
    with zipfile.ZipFile(book / "minidraw.epub") as epub:
        assert epub.namelist()[0] == "mimetype" and epub.read("mimetype") == b"application/epub+zip"
        items = dict(re.findall(r'<item [^>]*href="([^"]+)"([^>]*)', epub.read("content.opf").decode()))
        for name in epub.namelist():
            if name.endswith((".xhtml", ".opf", ".ncx", ".svg")):
                text = epub.read(name).decode()
                ElementTree.fromstring(re.sub("^<!DOCTYPE[^>]*>", "", text.strip()))
                assert ("<math" in text) == ('properties="mathml"' in items.get(name, "")), name
                styled = re.findall(r"<(\w+)[^>]* (?:displaystyle|scriptlevel)=", text)
                assert {*styled} <= {"math", "mstyle", "mtable"}, name  # all that MathML 3 allows
        for path in CHAPTERS:
            assert f"{path.stem}.xhtml" in epub.namelist()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, TUTORIAL / "chapters.py", "site", tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1 and "holds something else" in done.stderr and len(list(tmp_path.iterdir())) == 1
