"""Sphinx's configuration, and four hooks: formulas as MathML, equation numbers as links, docstrings, the e-book."""

import re
from pathlib import Path
from xml.etree import ElementTree

import math_core
from docutils import nodes
from sphinx.builders.epub3 import Epub3Builder

import minidraw

project = html_title = html_short_title = "minidraw"
author = "minidraw's authors"
version = release = minidraw.__version__
root_doc = "index"
exclude_patterns = ["_extra", "_static", ".doctrees"]
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx.ext.githubpages"]
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
suppress_warnings = ["myst.xref_missing"]  # equations have anchors in HTML, which MyST does not see: the tests check
default_role = "literal"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # `np`, and not where numpy lies on this machine
toc_object_entries = False

html_theme = "furo"
html_theme_options = {"footer_icons": [], "source_edit_link": "", "source_view_link": ""}
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_extra_path = ["_extra"]
html_css_files = ["style.css", "screen.css"]
html_favicon = "_static/icon.svg"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_show_search_summary = False  # it is fetched, which a page opened from the disk may not do

epub_title = "minidraw: how a neural network draws"
epub_description = "DRAW from scratch: every line, every gradient"
epub_basename = "minidraw"
epub_author = epub_publisher = epub_contributor = author
epub_copyright = "MIT licence"
epub_uid = epub_identifier = f"minidraw-{version}"  # the two lists of contents have to agree
epub_scheme = "title"
epub_show_urls = "no"
epub_use_index = False
epub_tocscope = "includehidden"
epub_css_files = ["style.css"]
epub_exclude_files = [".nojekyll", "_static/icon.svg", "_static/screen.css"]
viewcode_enable_epub = False

NUMBER = re.compile(r"\s*\\qquad \\text\{(\(\d+\.\d+\))\}")
ANCHOR = re.compile(r'<a id="(eq-(\d+)-(\d+))"></a>')
CITED = re.compile(r"<a\b[^>]*>.*?</a>|<math\b.*?</math>|<h\d\b.*?</h\d>|<[^>]*>|(?<![\w.])\((\d+\.\d+)\)", re.DOTALL)
to_mathml = math_core.LatexToMathML(xml_namespace=True).convert_with_local_state


MATHML = "{http://www.w3.org/1998/Math/MathML}"
ElementTree.register_namespace("", MATHML.strip("{}"))


def mathml(tex, display):
    """TeX as MathML: in characters that XML knows, and with a bar for \\overline that stretches."""
    text = to_mathml(tex, displaystyle=display).replace("&ApplyFunction;", "\u2061").replace("\u0332", "\u203e")
    root = ElementTree.fromstring(text)
    put_styles_around(root)
    return ElementTree.tostring(root, encoding="unicode")


def put_styles_around(element):
    """What is inside sets its style by an <mstyle> around it: the MathML 3 of e-books knows no other way."""
    for k, child in enumerate(element):
        put_styles_around(child)
        style = {name: child.attrib.pop(name) for name in ("displaystyle", "scriptlevel") if name in child.attrib}
        if child.tag == f"{MATHML}mtable":  # which may have the one, and does not need the other
            child.attrib |= {name: value for name, value in style.items() if name == "displaystyle"}
        elif child.tag == f"{MATHML}mstyle":
            child.attrib |= style
        elif style:
            element[k] = ElementTree.Element(f"{MATHML}mstyle", style)
            element[k].append(child)


def visit_math(translator, node):
    """$`x`$ on GitHub is $x$ with the marks of code inside for MyST."""
    translator.body.append(mathml(node.astext().strip("`"), display=False))
    raise nodes.SkipNode


def visit_displaymath(translator, node):
    """An equation that scrolls where it is too wide, and its number beside it."""
    tex = node.astext()
    number = NUMBER.search(tex)
    formula = mathml(NUMBER.sub("", tex), display=True)
    beside = f'<span class="number">{number[1]}</span>' if number else ""
    translator.body.append(f'<div class="equation"><div class="formula">{formula}</div>{beside}</div>')
    raise nodes.SkipNode


def find_equations(app):
    """Where each equation is: the page and the anchor of "5.4"."""
    app.equations = {
        f"{chapter}.{number}": (path.stem, anchor)
        for path in Path(app.srcdir).glob("[0-9][0-9]-*.md")
        for anchor, chapter, number in ANCHOR.findall(path.read_text(encoding="utf-8"))
    }


SYMBOL = re.compile(r'(<a class="reference internal" href="[^"]*#symbol-\d+")>(.*?)</a>', re.DOTALL)
QUOTED = re.compile(r"(<summary>(?:(?!</summary>).)*?), quoted from (<a [^>]*>.*?</a>): not to be run</summary>")


def finish_page(app, pagename, templatename, context, doctree):
    """Make a link of every equation number, in prose, code and docstrings; let keys scroll what is too wide.

    And what a reader by ear needs: headings in the list of contents have a level, links that are formulas have a name,
    and there is no link within what opens and closes a quotation.
    """

    def link(found):
        if found[1] not in app.equations:
            return found[0]
        page, anchor = app.equations[found[1]]
        file = "" if app.builder.name == "singlehtml" else context["pathto"](page).rstrip("#")
        return f'<a class="equation-number" href="{file}#{anchor}">{found[0]}</a>'

    def named(found):
        return f'{found[1]} aria-label="{re.sub("<.*?>", "", found[2])}, in the notation">{found[2]}</a>'

    if "body" in context:
        context["body"] = re.sub(
            r'<(pre|div class="(?:formula|table-wrapper)[^"]*")', r'<\1 tabindex="0"', CITED.sub(link, context["body"])
        )
        context["body"] = SYMBOL.sub(named, context["body"])
        context["body"] = QUOTED.sub(r"\1, quoted</summary>\n<p>From \2; not to be run.</p>", context["body"])
    for place in ("body", "furo_navigation_tree"):
        if place in context:
            context[place] = context[place].replace('role="heading">', 'role="heading" aria-level="2">')


def docstring(app, what, name, thing, options, lines):
    """The docstrings are plain text: what is indented by four is verbatim, and reStructuredText wants to be told so."""
    verbatim, said = False, []
    for line in lines:
        indented = line.startswith("    ")
        said += ["::", ""] * (indented and not verbatim) + [line]
        verbatim = indented or verbatim and not line
    lines[:] = said


def not_ours(app, what, name, thing, skip, options):
    """Leave out what named tuples and matplotlib put into a class by themselves."""
    return skip or (thing.__doc__ or "").startswith(("Alias for field number", "Set multiple properties at once"))


class Epub(Epub3Builder):
    """Says in the list of contents which pages hold MathML, as EPUB 3 demands."""

    def build_content(self):
        super().build_content()
        path = Path(self.outdir) / "content.opf"

        def declare(item):
            page = path.parent / item[1]
            holds = page.exists() and "<math" in page.read_text(encoding="utf-8")  # contents are written after this
            return item[0].replace("/>", 'properties="mathml" />') if holds else item[0]

        text = re.sub(r'<item [^>]*href="([^"]+\.xhtml)"[^>]*/>', declare, path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.add_builder(Epub, override=True)
    app.connect("builder-inited", find_equations)
    app.connect("html-page-context", finish_page, priority=900)  # after furo, which makes the list of contents
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-skip-member", not_ours)
