"""The tutorial's diagrams: up to date, well-formed, legible on a phone, in light and dark, and for those who listen."""

import importlib.util
import itertools
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.ft2font import FT2Font

TUTORIAL = Path(__file__).parents[1] / "tutorial"
sys.path.insert(0, str(TUTORIAL))  # so that diagrams.py finds cluttered.py
spec = importlib.util.spec_from_file_location("diagrams", TUTORIAL / "diagrams.py")
diagrams = importlib.util.module_from_spec(spec)
spec.loader.exec_module(diagrams)

FILES = sorted((TUTORIAL / "figures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu Sans: no usual sans-serif is wider
ROMAN, ITALIC = FT2Font(str(FONTS / "DejaVuSans.ttf")), FT2Font(str(FONTS / "DejaVuSans-Oblique.ttf"))
PHONE = 358  # pixels
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def drawn():
    return {name: diagram.svg() for name, diagram in diagrams.diagrams().items()}


# Up to date


def compare(found, wanted, name):
    """Raise AssertionError for another diagram. Another machine may round a number or a pixel differently."""
    found, wanted = found.splitlines(), wanted.splitlines()
    stale = f"{name}.svg is stale: python tutorial/diagrams.py"
    assert len(found) == len(wanted), stale
    for a, b in zip(found, wanted, strict=True):
        if "crispEdges" in a:  # the pixels of one grey: how many there are
            areas = [sum(map(float, re.findall(r"h([\d.]+)v", line))) for line in (a, b)]
            assert np.isclose(*areas, rtol=0.03, atol=15) and a.split("d=")[0] == b.split("d=")[0], stale
        else:
            assert NUMBER.sub("#", a) == NUMBER.sub("#", b), f"{stale}\n{a}\n{b}"
            numbers = [np.array(NUMBER.findall(line), dtype=float) for line in (a, b)]
            assert np.allclose(*numbers, rtol=0, atol=0.11), f"{stale}\n{a}\n{b}"


def test_every_diagram_is_up_to_date(drawn):
    assert {path.stem for path in FILES} == set(drawn)
    for path in FILES:
        compare(drawn[path.stem], path.read_text(encoding="utf-8"), path.stem)


@pytest.mark.parametrize("chapter", diagrams.HERE)
def test_a_chapter_begins_with_its_place_in_the_loop(chapter):
    (path,) = TUTORIAL.glob(f"{chapter:02}-*.md")
    _, _, image, _, caption, *_ = path.read_text(encoding="utf-8").splitlines()
    assert image.endswith(f"(figures/here-{chapter:02}.svg)")
    assert caption == f"*You are here: {diagrams.HERE[chapter][1]}.*"


@each_file
def test_a_diagram_has_its_message_below(path):
    for page in TUTORIAL.glob("[0-9]*.md"):
        for below in page.read_text(encoding="utf-8").split(f"(figures/{path.name})\n")[1:]:
            assert re.match(r"\n\*[\w(]", below), f"{page.name}: {path.name} has no caption"


# Legible


def label_box(text):
    """(left, top, right, bottom) of a <text>, in units, as DejaVu Sans has it."""
    size, y = float(text.get("font-size")), float(text.get("y"))
    at, tops, bottoms, extent = 0.0, [], [], 0.0
    runs = [(text.text, {})]
    for span in text:
        runs += [(span.text, span.attrib), (span.tail, {})]
    for words, attributes in runs:
        if not words:
            continue
        at += float(attributes.get("dx", 0))
        y += float(attributes.get("dy", 0))
        run_size = float(attributes.get("font-size", size))
        font = ITALIC if "font-style" in attributes else ROMAN
        font.set_size(run_size, 72)
        at += sum(font.load_char(ord(letter)).linearHoriAdvance for letter in words) / 65536
        extent = max(extent, at)
        tops.append(y - (0.95 if "text-decoration" in attributes else 0.75) * run_size)
        bottoms.append(y + 0.2 * run_size)
    left = float(text.get("x")) - {"start": 0, "middle": extent / 2, "end": extent}[text.get("text-anchor")]
    return left, min(tops), left + extent, max(bottoms)


def points(path):
    """Places along a path of straight pieces, at most a unit apart: (count, 2)."""
    corners = np.array(NUMBER.findall(path.get("d")), dtype=float).reshape(-1, 2)
    pieces = [np.linspace(a, b, int(np.hypot(*(b - a))) + 2) for a, b in zip(corners, corners[1:], strict=False)]
    return np.concatenate(pieces)


def words_of(text):
    return "".join(text.itertext())


def check_legible(svg):
    """Raise AssertionError for words that are too small, outside, on others, on a line, or wider than their box."""
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    texts = [(label_box(text), words_of(text)) for text in root.iter(f"{SVG}text")]
    assert not any("transform" in element.attrib for element in root.iter()), "places would have to be computed"
    for text in root.iter(f"{SVG}text"):
        assert float(text.get("font-size")) * PHONE / width >= 12, f"{words_of(text)!r} is too small for a phone"
    for (left, top, right, bottom), words in texts:
        assert left >= 0 and top >= 0 and right <= width and bottom <= height, f"{words!r} leaves the picture"
    for (a, first), (b, second) in itertools.combinations(texts, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{first!r} lies on {second!r}"
    for path in root.iter(f"{SVG}path"):
        if path.get("class", "").startswith("line"):
            x, y = points(path).T
            for (left, top, right, bottom), words in texts:
                crossed = (x > left) & (x < right) & (y > top) & (y < bottom)
                assert not crossed.any(), f"a line runs through {words!r}"
    boxes = [
        [float(rect.get(key)) for key in ("x", "y", "width", "height")]
        for rect in root.iter(f"{SVG}rect")
        if rect.get("class", "").startswith("box")
    ]
    for (left, top, right, bottom), words in texts:
        for x, y, w, h in boxes:
            touches = left < x + w and x < right and top < y + h and y < bottom
            inside = x + 2 <= left and right <= x + w - 2 and y <= top and bottom <= y + h
            assert inside or not touches, f"{words!r} does not fit its box"


@each_file
def test_words_can_be_read(path):
    check_legible(path.read_text(encoding="utf-8"))


@each_file
def test_it_speaks_to_those_who_cannot_see_and_has_a_dark_side(path):
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    assert len(root.find(f"{SVG}title").text) > 10 and len(root.find(f"{SVG}desc").text) > 80
    assert root.get("role") == "img"
    style = root.find(f"{SVG}style").text
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    assert light.count("{") + 1 == dark.count("{") and "#0d1117" in dark and "#ffffff" in light
    assert not re.search(r"url\(|@import|@font-face|href", path.read_text(encoding="utf-8")), "nothing from outside"


def luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in bytes.fromhex(color[1:])
              for c in [c / 255]]  # fmt: skip
    return np.dot([0.2126, 0.7152, 0.0722], linear)


@pytest.mark.parametrize("colors", [diagrams.LIGHT, diagrams.DARK], ids=["light", "dark"])
def test_the_words_stand_out(colors):
    """A contrast of 4.5 to 1, WCAG's for words of this size."""
    on_ground = [(words, ground) for words in ("ink", "muted", "read", "write_text", "latent", "gradient", "cost")
                 for ground in ("ground", "band")]  # fmt: skip
    on_boxes = [("ink", box) for box in ("box", "read_box", "write_box", "latent_box", "cost_box")]
    for words, ground in [*on_ground, *on_boxes, ("muted", "box"), ("gradient", "box")]:
        dark, light = sorted(luminance(colors[each]) for each in (words, ground))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{words} on {ground}"


# What one of them claims


def test_the_family_has_the_same_arrows(drawn):
    """The deep VAE has them all; DRAW lacks the one into p, the diffusion model the four into and out of f."""
    heads = [set(), set(), set()]
    for head in ET.fromstring(drawn["family"]).iter(f"{SVG}polygon"):
        x, y = map(float, NUMBER.findall(head.get("points"))[:2])
        column = int(x // (diagrams.WIDTH / 3))
        heads[column].add((round(x - 132 * column), round(y)))
    draw, deep, diffusion = heads
    assert draw < deep and len(deep - draw) == 1
    assert diffusion < deep and len(deep - diffusion) == 4


# A bad diagram is caught.


@pytest.mark.parametrize(
    "fault, message",
    [
        (lambda d: d.text(390, 50, "too far"), "leaves the picture"),
        (lambda d: d.text(200, 97, "bottom"), "leaves the picture"),
        (lambda d: d.text(110, 55, "there"), "lies on"),
        (lambda d: d.arrow((10, 60), (90, 45)), "a line runs through"),
        (lambda d: d.box(300, 50, 40, 30, "a long label"), "does not fit"),
        (lambda d: d.text(200, 20, "small", size=10), "too small"),
    ],
    ids=["beside", "below", "words on words", "a line through words", "a box too small", "small"],
)
def test_a_bad_diagram_is_caught(fault, message):
    diagram = diagrams.Diagram("A test", "Two words", 100)
    diagram.text(100, 50, "words *x*_{t}^{dec}")
    diagram.box(300, 50, 120, 30, "boxed") if message != "does not fit" else None
    check_legible(diagram.svg())
    fault(diagram)
    with pytest.raises(AssertionError, match=message):
        check_legible(diagram.svg())


def test_a_stale_file_is_caught(drawn):
    old = drawn["vae"]
    compare(old, old, "vae")
    for new in (
        old.replace("encoder", "coder", 1),
        old.replace('x="166"', 'x="168"'),
        re.sub('d="M[^"]*z"', 'd="M0 0h1v1z"', old),
    ):
        with pytest.raises(AssertionError, match="stale"):
            compare(new, old, "vae")
