"""The book in a browser: it fits a phone, says nothing to the console, fetches nothing, and can be searched."""

import pytest
from test_page_browser import AXE, CHROMIUM, DRIVER, Page, chromium, silent, wait  # noqa: F401
from test_site import CHAPTERS, MISSING

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here (chromium-driver)"),
    pytest.mark.skipif(bool(MISSING), reason=f"not here: {', '.join(MISSING)}; pip install -e '.[site]'"),
]
PAGES = ["index", "notation", "glossary", "gradients", "practice", "minidraw", "api", *(path.stem for path in CHAPTERS)]
# What sticks out of the column and does not scroll by itself.
WIDE = """
const scrolls = (e) => e && (["auto", "scroll"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
return [...document.querySelectorAll("article *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1
  && !scrolls(e)).map((e) => e.outerHTML.slice(0, 90))
"""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_keeps_silent(chromium, book, name):  # noqa: F811
    here = Page(chromium, book / f"{name}.html").open(width=390, prefers_color_scheme="dark")
    assert here.js("return document.documentElement.scrollWidth") <= 390
    assert here.js(WIDE) == []
    assert here.js("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    silent(chromium)


def test_search_finds_the_forget_gate(chromium, book):  # noqa: F811
    here = Page(chromium, book / "search.html")
    here.address += "?q=forget+gate"
    here.open()
    wait(lambda: "LSTM" in here["search-results"].text)


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core 4 here: npm install axe-core, or set MINIDRAW_AXE")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", "api", CHAPTERS[0].stem, CHAPTERS[5].stem])
def test_axe_finds_nothing_serious(chromium, book, name, scheme):  # noqa: F811
    here = Page(chromium, book / f"{name}.html").open(prefers_color_scheme=scheme)
    here.js(AXE.read_text(encoding="utf-8"))
    found = chromium.execute_async_script(
        "const done = arguments[0]; axe.run({iframes: false}).then((result) => done(result.violations))"
    )
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], [node["html"][:90] for node in rule["nodes"]]) for rule in serious] == []
