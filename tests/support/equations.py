"""How wide an equation is on the page, from its TeX: an estimate, within some 15 % of what MathJax makes of it."""

import re
from itertools import zip_longest

SIZES = {  # of what is not about as wide as a letter, in ex
    **{r"\qquad": 4.6, r"\quad": 2.3, r"\,": 0.4, r"\;": 0.65, r"\!": -0.4, r"\left": 0.25, r"\right": 0.25},
    **{r"\big": 0.2, r"\Big": 0.3, r"\log": 3.3, r"\exp": 3.6, r"\tanh": 4.7, r"\max": 4.3, r"\min": 4.0, r"\ln": 2.3},
    **dict.fromkeys((r"\dots", r"\cdots", r"\approx", r"\pm", r"\le", r"\ge", r"\gg", r"\propto", r"\sim"), 3.0),
    **{r"\int": 2.5, r"\cdot": 1.7, r"\leftarrow": 3.5, r"\otimes": 2.8, r"\|": 1.1},
    **dict.fromkeys("=<>", 3.0) | dict.fromkeys("+-", 2.7) | dict.fromkeys("()[]|!/", 0.9) | dict.fromkeys(",.;:", 1.0),
    **dict.fromkeys(" \n{}&", 0.0) | {"'": 0.6, "~": 0.6, "m": 1.75, "w": 1.75},
}
CAPITAL, LETTER, SMALL = 1.75, 1.16, 0.72  # SMALL: a script's size beside the line's
SCRIPTS = r"(?:[_^](?:\{[^{}]*\}|\\[a-zA-Z]+|[^{}\\ ]))+"


def row_width(tex):
    """The width of a piece of a line, in ex."""

    def known(width):
        return f"@{width:.2f}@"  # stands for something of this width

    def scripts(match):  # those below one another take the room of the longest
        return known(max(SMALL * row_width(script) for script in re.split("[_^]", match[0])[1:]))

    def limits(match):
        return known(max(3.4, *(SMALL * row_width(limit) for limit in re.split("[_^]", match[0])[1:]), 0))

    def fraction(match):
        return known((SMALL if match[1] == "t" else 1) * max(map(row_width, match.groups()[1:])) + 0.6)

    tex = re.sub(r"\\text\{([^{}]*)\}", lambda match: match[1].replace(" ", "~").lower(), tex)
    tex = re.sub(r"\\([td]?)frac(\w)(\w)", r"\\\1frac{\2}{\3}", tex)
    tex = re.sub(r"\\(?:tilde|hat|bar) *(?=\\?\w)", "", tex)
    for _ in range(5):  # from the inside out
        tex = re.sub(r"\\underbrace\{([^{}]*)\}_\{[^{}]*\}", r"\1", tex)
        tex = re.sub(r"\\(?:tilde|hat|bar|overline|sqrt)\s*\{([^{}]*)\}", r"\1", tex)
        tex = re.sub(r"\\([td]?)frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", fraction, tex)
        tex = re.sub(rf"\\(?:sum|prod)(?:{SCRIPTS})?", limits, tex)
        tex = re.sub(SCRIPTS, scripts, tex)
    width = 0.0
    for token in re.findall(r"@[\d.]+@|\\[a-zA-Z]+|\\.|.", tex, re.DOTALL):
        if token[0] == "@":
            width += float(token[1:-1])
        else:
            width += SIZES.get(token, CAPITAL if token.isupper() else LETTER)
    return width


def width(tex):
    """The width of a displayed equation, in ex: of `aligned`, the widest cell of every column."""

    def matrix(match):
        return f"@{2 + sum(row_width(cell) + 2 for cell in match[1].split(chr(92) * 2)[0].split('&')):.2f}@"

    tex = re.sub(r"\\begin\{bmatrix\}(.*?)\\end\{bmatrix\}", matrix, tex, flags=re.DOTALL)
    rows = [row.split("&") for row in re.split(r"\\\\(?=\s)", re.sub(r"\\(begin|end)\{aligned\}", "", tex))]
    return sum(max(map(row_width, column)) for column in zip_longest(*rows, fillvalue=""))
