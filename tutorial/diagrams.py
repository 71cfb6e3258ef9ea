"""The tutorial's diagrams: `python tutorial/diagrams.py` writes each as SVG into tutorial/figures.

One style for all: reading is blue and dashed, writing vermilion, the latents are teal, costs yellow, gradients purple
and dotted, and everything else is grey. A diagram is 400 units wide, so that on a phone, in a column of 358 pixels, its
smallest words stand 12 pixels high; indices are smaller. Light and dark are two sets of colours, of which the reader's
system chooses.

What can be computed is: digits, canvases and windows are a bundled model's, filters and gradients the library's.
"""

import contextlib
import json
import re
from html import escape
from pathlib import Path
from string import Template

import gan
import numpy as np
from cluttered import SIDE, Split

import minidraw
from minidraw import autodiff
from minidraw.images import grey_digits
from minidraw.ops import elementary, filterbank
from minidraw.ops.attention import window

FIGURES, RUNS = (Path(__file__).resolve().parent / folder for folder in ("figures", "runs"))
WIDTH = 400
SIZE, SMALL = 15, 13.5  # of words, in units
INDEX = 0.8  # the size of an index, in that of its letter
SCALE = 1.2  # pixels a unit, where there is room
GAN_SAMPLE = 0  # the seed of the noise that the GAN's diagram shows

LIGHT = {
    "ground": "#ffffff", "band": "#f3f5f7", "ink": "#1f2328", "muted": "#57606a", "edge": "#6e7781", "box": "#e9edf1",
    "read": "#0072b2", "read_box": "#e3f1fa", "write": "#d55e00", "write_text": "#b34e00", "write_box": "#fdebdf",
    "latent": "#00775a", "latent_box": "#dcf3ec", "gradient": "#9c3d77",
    "cost": "#8a6100", "cost_box": "#fdf1d3",
}  # fmt: skip
DARK = {
    "ground": "#0d1117", "band": "#161c24", "ink": "#e6edf3", "muted": "#9ca5af", "edge": "#8b949e", "box": "#262d36",
    "read": "#56b4e9", "read_box": "#10293b", "write": "#ff7a33", "write_text": "#ff9a63", "write_box": "#3b1f10",
    "latent": "#3fc9a0", "latent_box": "#0f3328", "gradient": "#e59fc6",
    "cost": "#e6b84a", "cost_box": "#35290c",
}  # fmt: skip
RULES = Template("""
text { font-family: sans-serif; fill: $ink }
.ground { fill: $ground } .band { fill: $band }
.box { fill: $box; stroke: $edge; stroke-width: 1.5 }
.line { fill: none; stroke: $edge; stroke-width: 1.5 } .head { fill: $edge }
.dot { fill: $edge }
.box.read { fill: $read_box; stroke: $read; stroke-dasharray: 5 3 }
.box.gradient { stroke: $gradient }
.line.read { stroke: $read; stroke-width: 2; stroke-dasharray: 5 3 } .head.read, text.read { fill: $read }
.box.write { fill: $write_box; stroke: $write }
.line.write { stroke: $write; stroke-width: 2 } .head.write { fill: $write } text.write { fill: $write_text }
.box.latent { fill: $latent_box; stroke: $latent }
.line.latent { stroke: $latent; stroke-width: 2 } .head.latent, text.latent { fill: $latent }
.box.cost { fill: $cost_box; stroke: $cost } text.cost { fill: $cost }
.line.gradient { stroke: $gradient; stroke-width: 2; stroke-dasharray: 0.1 4.5; stroke-linecap: round }
.head.gradient, text.gradient { fill: $gradient }
.box.other { fill: $ground; stroke-dasharray: 2 2 } .line.other { stroke-width: 2; stroke-dasharray: 2 2 }
.spot { fill: $read; stroke: #ffffff; stroke-width: 1 } .spot.ring { fill: none; stroke-width: 2 }
.box.open { fill: none } .line.solid { stroke-dasharray: none }
.line.thin { stroke-width: 1; stroke-dasharray: none } text.muted { fill: $muted }
.faded { opacity: 0.4 }
""")
STYLE = f"{RULES.substitute(LIGHT)}@media (prefers-color-scheme: dark) {{{RULES.substitute(DARK)}}}\n"


# The vocabulary. Places are in units, from the upper left; the place of a word or a box is its middle.


def number(value):
    """At most one decimal, and no zero behind it."""
    return f"{round(float(value), 1):g}"


def spans(label, size):
    """SVG for a label: *italic*, index _{...}, exponent ^{...}, one below the other where both stand.

    In an index or exponent single letters are italic by themselves.
    """
    italics, height, out, before = False, 0, [], ""
    for token in re.findall(r"\*|[_^]\{[^}]*\}|[^*_^]+", label):
        if token == "*":
            italics = not italics
            continue
        target = {"_": 0.28 * size, "^": -0.38 * size}.get(token[0], 0)
        words = re.findall("[A-Za-z]+|[^A-Za-z]+", token[2:-1]) if target else [token]
        below = before if token[0] == "_" and before[:1] == "^" else ""
        for k, word in enumerate(words):
            shift = {"dy": target - height, "dx": -0.5 * INDEX * size * len(below[2:-1]) * (k == 0)}
            attributes = "".join(f' {name}="{number(value)}"' for name, value in shift.items() if value)
            italic = len(word) == 1 and word.isalpha() if target else italics
            attributes += ' font-style="italic"' if italic else ""
            attributes += f' font-size="{number(INDEX * size)}"' if target else ""
            out.append(f"<tspan{attributes}>{escape(word)}</tspan>" if attributes else escape(word))
            height = target
        before = token
    return "".join(out)


def corner(point, towards, distance):
    """The place at a distance from a point, towards another one."""
    step = np.subtract(towards, point)
    return np.asarray(point) + step * (distance / np.hypot(*step))


class Diagram:
    """What has been drawn so far."""

    def __init__(self, title, description, height):
        self.title, self.description, self.height, self.parts = title, description, height, []

    def add(self, tag, kind="", inside=None, **attributes):
        pairs = {"class": kind, **attributes}
        text = "".join(
            f' {name.replace("_", "-")}="{value if isinstance(value, str) else number(value)}"'
            for name, value in pairs.items()
            if value != ""
        )
        self.parts.append(f"<{tag}{text}/>" if inside is None else f"<{tag}{text}>{inside}</{tag}>")

    def text(self, x, y, label, kind="", anchor="middle", size=SIZE):
        """Words whose height has its middle at y; `anchor` says whether x is their start, middle or end."""
        self.add("text", kind, spans(label, size), x=x, y=y + 0.35 * size, font_size=size, text_anchor=anchor)

    def box(self, x, y, width, height, label="", kind="", size=SIZE, round=5):
        place = {"x": x - width / 2, "y": y - height / 2, "width": width, "height": height}
        self.add("rect", f"box {kind}".strip(), **place, **({"rx": round} if round else {}))
        if label:
            self.text(x, y, label, size=size)

    def node(self, x, y, label, kind=""):
        """A small round operation."""
        self.add("circle", f"box {kind}".strip(), cx=x, cy=y, r=11)
        self.text(x, y, label)

    def line(self, *points, kind=""):
        """Straight pieces with round corners."""
        path = [f"M{number(points[0][0])} {number(points[0][1])}"]
        for before, point, after in zip(points, points[1:], points[2:], strict=False):
            nearest = min(np.hypot(*np.subtract(point, other)) for other in (before, after))
            start, end = (corner(point, other, min(6, nearest / 2)) for other in (before, after))
            path.append("L{} {}Q{} {} {} {}".format(*map(number, (*start, *point, *end))))
        path.append(f"L{number(points[-1][0])} {number(points[-1][1])}")
        self.add("path", f"line {kind}".strip(), d="".join(path))

    def arrow(self, *points, kind=""):
        """A line with a head at its last point."""
        tip, before = np.asarray(points[-1], float), points[-2]
        back = corner(tip, before, 8)
        side = (back - tip)[::-1] * (-0.45, 0.45)
        self.line(*points[:-1], corner(tip, before, 7), kind=kind)
        head = " ".join(",".join(map(number, place)) for place in (tip, back + side, back - side))
        self.add("polygon", f"head {kind}".replace("thin", "").strip(), points=head)

    def dot(self, x, y):
        """Where lines part. Lines that cross without a dot have nothing to do with each other."""
        self.add("circle", "dot", cx=x, cy=y, r=3.2)

    def brace(self, start, end, y, depth, kind=""):
        """A bracket below (depth > 0) or above from x = start to end, with a tip in the middle."""
        middle = (start + end) / 2
        self.line((start, y), (start, y + depth / 2), (end, y + depth / 2), (end, y), kind=f"{kind} thin".strip())
        self.line((middle, y + depth / 2), (middle, y + depth), kind=f"{kind} thin".strip())

    def pixels(self, x, y, scale, image, kind="", levels=8):
        """An image with values from 0 (black) to 1, its upper left corner at (x, y), `scale` units a pixel."""
        shades = np.rint(np.clip(image, 0, 1) * (levels - 1)).astype(int)
        most = np.bincount(shades.ravel()).argmax()
        width, height = scale * shades.shape[1], scale * shades.shape[0]
        grey = ["#" + f"{round(255 * shade / (levels - 1)):02x}" * 3 for shade in range(levels)]
        self.add("rect", x=x, y=y, width=width, height=height, fill=grey[most])
        for shade in sorted(set(shades.ravel()) - {most}):
            path = ""
            for row, values in enumerate(shades == shade):
                edges = np.flatnonzero(np.diff(np.concatenate([[0], values, [0]])))
                for start, stop in zip(edges[::2], edges[1::2], strict=True):
                    place = number(x + scale * start), number(y + scale * row)
                    run = number(scale * (stop - start))
                    path += f"M{' '.join(place)}h{run}v{number(scale)}h-{run}z"
            self.add("path", d=path, fill=grey[shade], shape_rendering="crispEdges")
        self.add("rect", f"box open {kind}".strip(), x=x, y=y, width=width, height=height)

    def window(self, x, y, scale, p, N, kind, side=28):
        """The rectangle through the outermost filters of a window p (5,), over a square image drawn at (x, y)."""
        g, _, delta, _ = (each[0] for each in window(p[None].astype(float), N=N, A=side, B=side))
        corners = (g + s * (N - 1) / 2 * delta + 0.5 for s in (-1, 1))
        (left, top), (right, bottom) = (np.clip(corner, -1, side + 1) * scale for corner in corners)
        corners = [(x + left, y + top), (x + right, y + top), (x + right, y + bottom), (x + left, y + bottom)]
        path = "M" + "L".join(f"{number(a)} {number(b)}" for a, b in corners) + "Z"
        self.add("path", f"line {kind}", d=path)

    @contextlib.contextmanager
    def group(self, kind):
        self.parts.append(f'<g class="{kind}">')
        yield
        self.parts.append("</g>")

    def svg(self):
        head = f'viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH * SCALE:g}" height="{self.height * SCALE:g}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {head} role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<desc>{escape(self.description)}</desc>",
                f"<style>{STYLE}</style>",
                f'<rect class="ground" width="{WIDTH}" height="{self.height}" rx="6"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


# The network.


def steps(drawing, first, count=2):
    """Canvases and windows of `count` steps of the only image of a Drawing, from step `first` on, counted from 1."""
    at = slice(first - 1, first - 1 + count)
    read = drawing.read_windows
    return drawing.means[at, 0], drawing.write_windows[at, 0], None if read is None else read[at, 0]


def loop(diagram, images, generate):
    """DRAW over two steps, from above: the training half; then the drawing half, which begins with z."""
    x, canvases, write_windows, read_windows = images
    first, apart, half = 112, 174, 28
    training = "faded" if generate else ""
    with diagram.group(training):
        diagram.add("rect", "band", x=4, y=34, width=WIDTH - 8, height=236, rx=6)
    diagram.text(14, 49, "cut off" if generate else "only while it is trained", "muted", "start", SMALL)
    diagram.add("rect", "band", x=4, y=286, width=WIDTH - 8, height=304, rx=6)
    diagram.text(
        14, 578, "while it draws" if generate else "while it is trained, and while it draws", "muted", "start", SMALL
    )
    for X in (first - apart, first, first + apart):  # from a step to the next, under the boxes
        line = [np.clip(X + d, 8, WIDTH - 8) for d in (half, 48, 78, 114, apart - 48, apart - half)]
        with diagram.group(training):
            diagram.arrow((line[1], 240), (line[4], 240))
            diagram.arrow((line[0], 530), (line[2], 530), (line[2], 160), (line[4], 160))
            if X < first + apart:
                diagram.arrow((line[3], 393), (line[3], 174), (line[4], 174))
                diagram.arrow((line[3], 222), (line[4], 222))
                diagram.dot(line[3], 222)
                diagram.dot(line[3], 393)
            diagram.dot(line[2], 530)
        diagram.arrow((line[1], 393), (line[4], 393))
        diagram.arrow((line[0], 530), (line[5], 530))
    with diagram.group(training):
        diagram.text(first + 82, 147, "*x\u0302*_{t+1}", anchor="start")
    diagram.text(first + 82, 410, "*h*^{dec}_{t}", anchor="start")
    diagram.text(44, 516, "*c*_{t−1}")
    for k, now in enumerate(("t", "t+1")):
        X = first + k * apart
        diagram.text(X, 18, "step *t*" + " + 1" * k)
        with diagram.group(training):
            diagram.pixels(X - half, 62, 2, x)
            if not generate:
                diagram.window(X - half, 62, 2, read_windows[k], 5, "read")
            diagram.text(X + half + 8, 90, "*x*", anchor="start")
            diagram.arrow((X, 118), (X, 150), kind="read")
            diagram.text(X + 8, 134, "784", "muted", "start", SMALL)
            diagram.box(X, 167, 96, 34, "read", "read")
            diagram.arrow((X, 184), (X, 212))
            diagram.text(X + 8, 198, "*r*, 2·25", "muted", "start", SMALL)
            diagram.box(X, 231, 96, 38, "encoder")
            diagram.arrow((X, 250), (X, 314))
            diagram.text(X + 8, 261, "256", "muted", "start", SMALL)
        diagram.box(X, 330, 108, 32, f"*z*_{{{now}}} ~ " + ("N(0, *I*)" if generate else "*q*"), "latent")
        diagram.arrow((X, 346), (X, 374), kind="latent")
        diagram.text(X + 8, 360, "10", "muted", "start", SMALL)
        diagram.box(X, 393, 96, 38, "decoder")
        diagram.arrow((X, 412), (X, 440))
        diagram.text(X + 8, 426, "256", "muted", "start", SMALL)
        diagram.box(X, 457, 96, 34, "write", "write")
        diagram.arrow((X, 474), (X, 502), kind="write")
        diagram.text(X + 8, 488, "784", "muted", "start", SMALL)
        diagram.pixels(X - half, 502, 2, canvases[k])
        diagram.window(X - half, 502, 2, write_windows[k], 5, "write")
        diagram.text(X + half + 6, 516, f"*c*_{{{now}}}", anchor="start")
    diagram.text(WIDTH / 2, 608, "after *T* steps, sigmoid(*c*_{T}) is the picture")


def draw_unrolled():
    x = minidraw.mnist().test[:1]
    diagram = Diagram(
        "DRAW unrolled over two steps",
        "From top to bottom in each step: the image x is read through a window; the glimpse, 2 times 25 numbers, goes "
        "to the encoder, an LSTM of 256 units; it proposes the distribution q of ten latents z; the decoder, another "
        "LSTM, takes z; write adds a stroke of 784 numbers to the canvas c. From step to step go the states of both "
        "LSTMs and the canvas. The decoder's output goes to the next step's read and encoder, too, and the canvas to "
        "its read, as the error image. Read and encoder lie in a band of their own, for they are needed only to train.",
        622,
    )
    loop(diagram, (x[0].reshape(28, 28), *steps(minidraw.load("blog").reconstruct(x, seed=0), first=6)), generate=False)
    return diagram


def draw_generate():
    diagram = Diagram(
        "DRAW while it draws: the encoder is cut off",
        "The same two steps. The upper half, with image, read and encoder, is faded: it takes no part. The latents z "
        "of each step, ten numbers, come from the prior N(0, I) and go to the decoder, which writes on the canvas.",
        622,
    )
    x = minidraw.mnist().test[0].reshape(28, 28)
    loop(diagram, (x, *steps(minidraw.load("blog").sample(1, seed=6), first=6)), generate=True)
    return diagram


# A small map of the loop, for the head of a chapter.

PARTS = {  # width, kind
    "x": (22, ""), "read": (38, "read"), "encoder": (60, ""), "z": (24, "latent"), "decoder": (60, ""),
    "write": (42, "write"), "c": (24, ""), "L": (24, "cost")
}  # fmt: skip
HERE = {  # chapter: what it is about, and in words
    1: ({"backward"}, "the gradients, which flow from the loss back to every part"),
    2: ({"backward", "feedback"}, "the gradients, and the places where several roads of them meet"),
    3: ({"forward"}, "the arrows between the parts, which are affine maps"),
    4: ({"c", "L"}, "the canvas, and what it costs"),
    5: ({"encoder", "decoder"}, "the two LSTMs"),
    6: ({"z", "L"}, "the latents and the loss"),
    7: ({"backward", "read", "encoder", "z", "decoder", "write"}, "the gradients, and the parts that own weights"),
    8: ({"x", "encoder", "z", "decoder", "c", "L", "forward"}, "image, encoder, latents, decoder, canvas and loss"),
    9: ({"x", "encoder", "z", "decoder", "c", "feedback"}, "the loop: what goes back to the next step"),
    10: ({"read", "write", "windows"}, "the windows of read and write, which the decoder's output places"),
    11: ({"x", "read", "write", "c"}, "read and write"),
    12: ({*PARTS, "forward", "backward", "feedback"}, "the whole loop, forward and backward"),
    13: ({*PARTS, "forward", "feedback", "windows"}, "the whole loop, forward"),
    16: ({"x", "read", "encoder"}, "image, read and encoder, the half of the loop that looks"),
    17: ({*PARTS, "forward", "feedback", "windows"}, "the whole loop, on a larger page"),
    18: ({*PARTS, "forward", "backward", "feedback", "windows"}, "all of it, at the paper's sizes"),
    19: ({"x", "encoder", "z", "c", "L"}, "image, encoder, latents, canvas and loss; the latents are bits"),
    20: ({"z", "decoder", "c"}, "latents, decoder and canvas: what is left without encoder and loss"),
    21: ({"z", "L"}, "the latents and what they cost; the rest of the loop stays"),
    22: (
        {"read", "z", "c", "L", "feedback"},
        "the parts that travelled on: the window, the latents, the canvas with its cost, and the loop itself",
    ),
}  # fmt: skip


def here(chapter):
    lit, about = HERE[chapter]
    diagram = Diagram(
        "You are here in DRAW's loop",
        "A strip of image x, read, encoder, latents z, decoder, write, canvas c and loss L, with arrows from left to "
        f"right, and back from decoder and canvas to the next step. Highlighted in this chapter: {about}.",
        84,
    )

    def shade(name):
        return diagram.group("" if name in lit else "faded")

    gap = (WIDTH - 12 - sum(width for width, _ in PARTS.values())) / (len(PARTS) - 1)
    middle, x, y = {}, 6, 26
    for name, (width, _) in PARTS.items():
        middle[name] = x + width / 2
        x += width + gap
    names = list(PARTS)
    for name, following in zip(names, names[1:], strict=False):
        start, end = middle[name] + PARTS[name][0] / 2, middle[following] - PARTS[following][0] / 2
        with shade("forward"):
            diagram.arrow((start, y + 5 * ("backward" in lit)), (end, y + 5 * ("backward" in lit)))
        if "backward" in lit:
            diagram.arrow((end, y - 6), (start, y - 6), kind="gradient")
    with shade("feedback"):
        diagram.arrow((middle["c"], y + 14), (middle["c"], 76), (middle["read"] - 8, 76), (middle["read"] - 8, y + 14))
    with diagram.group("" if {"feedback", "windows"} & lit else "faded"):
        diagram.arrow((middle["decoder"], y + 14), (middle["decoder"], 60), (middle["read"] + 8, 60),
                      (middle["read"] + 8, y + 14))  # fmt: skip
    with shade("feedback"):
        diagram.arrow((middle["encoder"], 60), (middle["encoder"], y + 14))
    for name, (width, kind) in PARTS.items():
        with shade(name):
            diagram.box(middle[name], y, width, 28, f"*{name}*" if len(name) == 1 else name, kind, SMALL)
    return diagram


# What single chapters need.


def vae():
    diagram = Diagram(
        "The variational autoencoder, and its two costs",
        "From top to bottom: the image x goes to the encoder; it gives mu and log sigma; with noise epsilon they make "
        "the sample z = mu + sigma epsilon; the decoder makes the logits c from it. Two costs: L_z, the divergence of "
        "the proposal q from the prior, arises at mu and sigma; L_x, minus log p of x given c, arises at the logits, "
        "and looks at the image again. Their sum is the loss.",
        640,
    )
    X, right, left = 166, 332, 34
    x = minidraw.mnist().test[0].reshape(28, 28)
    diagram.pixels(X - 28, 12, 2, x)
    diagram.text(X + 38, 40, "the image *x*", anchor="start")
    diagram.arrow((X, 68), (X, 104))
    diagram.text(X + 8, 84, "2·784, with its error image", "muted", "start", SMALL)
    diagram.box(X, 124, 120, 40, "encoder")
    diagram.line((X, 144), (X, 166))
    diagram.box(X, 210, 188, 64, "", "latent open")
    for side, name in ((-1, "*μ*"), (1, "log *σ*")):
        diagram.arrow((X, 166), (X + 46 * side, 166), (X + 46 * side, 192))
        diagram.line((X + 46 * side, 228), (X + 46 * side, 258), (X, 258), kind="latent")
        diagram.box(X + 46 * side, 210, 72, 36, name, "latent")
    diagram.dot(X, 166)
    diagram.text(X + 8, 154, "*H*", "muted", "start", SMALL)
    diagram.text(56, 210, "*q*", "latent")
    diagram.arrow((X, 258), (X, 288), kind="latent")
    diagram.text(X + 8, 273, "*Z* each", "muted", "start", SMALL)
    diagram.box(X, 308, 150, 40, "*z* = *μ* + *σ* · *ε*", "latent")
    diagram.box(right, 308, 92, 40, "*ε* ~ N(0, *I*)", size=SMALL)
    diagram.arrow((right - 46, 308), (X + 75, 308))
    diagram.arrow((X, 328), (X, 364), kind="latent")
    diagram.text(X + 8, 345, "*Z*", "muted", "start", SMALL)
    diagram.box(X, 384, 120, 40, "decoder")
    diagram.arrow((X, 404), (X, 440))
    diagram.text(X + 8, 421, "784", "muted", "start", SMALL)
    diagram.box(X, 460, 120, 40, "logits *c*")
    diagram.arrow((X, 480), (X, 516))
    diagram.arrow((X - 28, 40), (left, 40), (left, 538), (X - 92, 538))
    diagram.box(X, 538, 184, 44, "*L*_{x} = −log *p*(*x* | *c*)", "cost")
    diagram.arrow((X + 94, 210), (right - 42, 210))
    diagram.box(right, 210, 84, 64, "", "cost")
    diagram.text(right, 199, "*L*_{z} = KL")
    diagram.text(right, 221, "*q* to N(0, *I*)", size=SMALL)
    diagram.arrow((right + 24, 242), (right + 24, 262), (right + 56, 262), (right + 56, 616), (X + 92, 616))
    diagram.arrow((X, 560), (X, 596))
    diagram.box(X, 616, 184, 40, "*L*_{x} + *L*_{z} nats", "cost")
    return diagram


GATES = {"f": 80, "i": 170, "g": 250, "o": 330}  # where they stand, from left to right


def cell(diagram):
    """The lines and boxes of an LSTM cell."""
    diagram.arrow((10, 60), (69, 60))
    diagram.arrow((91, 60), (199, 60))
    diagram.arrow((221, 60), (390, 60))
    diagram.arrow((80, 268), (80, 71))
    diagram.arrow((170, 268), (170, 140), (199, 140))
    diagram.arrow((250, 268), (250, 140), (221, 140))
    diagram.arrow((210, 129), (210, 71))
    diagram.arrow((330, 60), (330, 92))
    diagram.dot(330, 60)
    diagram.arrow((330, 128), (330, 189))
    diagram.arrow((330, 268), (330, 211))
    diagram.arrow((341, 200), (390, 200))
    diagram.box(330, 110, 56, 36, "tanh")
    for x, y in ((80, 60), (210, 140), (330, 200)):
        diagram.node(x, y, "·")
    diagram.node(210, 60, "+")
    for gate, x in GATES.items():
        diagram.box(x, 290, 66, 44)
        diagram.text(x, 280, f"*{gate}*")
        diagram.text(x, 299, "tanh" if gate == "g" else "sigmoid", "muted", size=SMALL)


def lstm():
    diagram = Diagram(
        "An LSTM step",
        "The memory, cell, runs along the top from left to right: it is multiplied by the forget gate f, then i times "
        "g is added, which makes u. A branch goes through tanh, is multiplied by the output gate o, and leaves as h'. "
        "The four gates come from the columns of a, which is an affine map of the input x and the old h.",
        452,
    )
    cell(diagram)
    diagram.text(28, 42, "*cell*")
    diagram.text(372, 42, "*cell*′")
    diagram.text(378, 182, "*h*′")
    diagram.text(270, 46, "*u*")
    diagram.text(338, 146, "*s*", anchor="start")
    diagram.text(80, 30, "keep", "muted", size=SMALL)
    diagram.text(210, 30, "write", "muted", size=SMALL)
    diagram.text(366, 216, "show", "muted", size=SMALL)
    for gate, x in GATES.items():
        diagram.arrow((210, 360), (x, 360), (x, 312))
        diagram.text(x + 7, 336, f"*a*_{{{gate}}}", anchor="start")
    diagram.dot(210, 360)
    diagram.line((210, 360), (210, 388))
    diagram.text(218, 375, "*a*, 4*H*", "muted", "start", SMALL)
    diagram.box(210, 406, 160, 36, "[*x*, *h*] *W* + *b*")
    diagram.arrow((80, 406), (130, 406))
    diagram.arrow((340, 406), (290, 406))
    diagram.text(66, 406, "*x*")
    diagram.text(354, 406, "*h*")
    return diagram


def lstm_backward():
    diagram = Diagram(
        "An LSTM step, backward",
        "The same cell, faded, with gradients flowing against the arrows. From the right come dcell' and dh'. At the "
        "output gate's product: do = dh' s and ds = dh' o. Through tanh ds joins dcell', and their sum is du. From it "
        "come di = du g, dg = du i, df = du times the old cell, and dcell = du f for the old memory. Each gate's "
        "gradient is multiplied by its slope to give da.",
        440,
    )
    with diagram.group("faded"):
        cell(diagram)
    for points in [
        ((392, 52), (344, 52)), ((316, 52), (228, 52)), ((192, 52), (98, 52)), ((62, 52), (10, 52)),
        ((88, 78), (88, 262)), ((202, 78), (202, 122)),
        ((192, 132), (162, 132), (162, 262)), ((228, 132), (258, 132), (258, 262)),
        ((392, 192), (348, 192)), ((322, 184), (322, 134)), ((322, 88), (322, 66)), ((338, 218), (338, 262)),
        *(((x, 318), (x, 348)) for x in GATES.values()),
    ]:  # fmt: skip
        diagram.arrow(*points, kind="gradient")
    for x, y, *lines in [
        (8, 84, "*dcell* =", "*du* · *f*"),
        (98, 176, "*df* =", "*du* · *cell*"),
        (178, 176, "*di* =", "*du* · *g*"),
        (266, 232, "*dg* =", "*du* · *i*"),
        (346, 135, "*ds* =", "*dh*′ · *o*"),
        (346, 228, "*do* =", "*dh*′ · *s*"),
    ]:
        for k, words in enumerate(lines):
            diagram.text(x, y + 19 * k, words, "gradient", "start", SMALL)
    diagram.text(374, 77, "*dcell*′", "gradient", size=SMALL)
    diagram.text(275, 30, "*du* = *dcell*′ + *ds* · (1 − *s*^{2})", "gradient", size=SMALL)
    diagram.text(382, 176, "*dh*′", "gradient", size=SMALL)
    for gate, x in GATES.items():
        slope = "(1 − *g*^{2})" if gate == "g" else f"*{gate}* (1 − *{gate}*)"
        diagram.text(x, 362, f"*d{gate}* ·", "gradient", size=SMALL)
        diagram.text(x, 381, slope, "gradient", size=SMALL)
    diagram.brace(47, 363, 394, 14)
    diagram.text(205, 422, "*da* = [*da*_{i}, *da*_{f}, *da*_{o}, *da*_{g}]", "gradient")
    return diagram


def filter_geometry():
    diagram = Diagram(
        "The filters of a window",
        "An image, A pixels wide, with a grid of five by five centres over it. The middle of the grid is g, neighbours "
        "lie delta apart. Above the image stand the five rows of F_x, bell curves of width sigma over the columns of "
        "the grid, with a dot for each pixel; beside it the five rows of F_y over its rows.",
        456,
    )
    N, pixels, scale, left, top, high = 5, 28, 9, 40, 130, 190
    p = np.array([[0.08, -0.04, np.log(1.2), np.log(0.66), 0.0]])
    (g_x, g_y), sigma2, delta, _ = (each[0] for each in window(p, N=N, A=pixels, B=pixels))
    (F_x, F_y, _), _ = filterbank.on_arrays(p, N=N, A=pixels, B=pixels)
    right, below = left + scale * pixels, top + scale * pixels
    mu_x, mu_y = (g + (np.arange(N) - (N - 1) / 2) * delta for g in (g_x, g_y))  # (10.3)

    def x(a):
        return left + scale * (a + 0.5)

    def y(b):
        return top + scale * (b + 0.5)

    def curves(F, mu, place):
        fine, a = np.linspace(-0.5, pixels - 0.5, 40 * pixels), np.arange(pixels)
        for row, mean in zip(F, mu, strict=True):
            S = np.exp(-((a - mean) ** 2) / (2 * sigma2)).sum()
            bell = np.exp(-((fine - mean) ** 2) / (2 * sigma2)) / S  # (10.4), between the pixels, too
            shown = [place(at, value) for at, value in zip(fine, bell, strict=True) if value > 0.002]
            diagram.add("path", "line read solid", d="M" + "L".join(f"{number(u)} {number(v)}" for u, v in shown))
            for at, value in zip(a, row, strict=True):
                if value > 0.01:
                    u, v = place(at, value)
                    diagram.add("circle", "spot", cx=u, cy=v, r=2.5)

    diagram.pixels(left, top, scale, grey_digits()[0][5] / 255)
    curves(F_x[0], mu_x, lambda a, value: (x(a), top - 8 - high * value))
    curves(F_y[0], mu_y, lambda b, value: (right + 8 + high * value, y(b)))
    for b in mu_y:
        for a in mu_x:
            diagram.add("circle", "spot", cx=x(a), cy=y(b), r=3.5)
    diagram.add("circle", "spot ring", cx=x(g_x), cy=y(g_y), r=8)
    diagram.line((x(g_x), below + 2), (x(g_x), below + 12), kind="read solid")
    diagram.text(x(g_x), below + 22, "*g*_{x}", "read")
    diagram.line((left - 12, y(g_y)), (left - 2, y(g_y)), kind="read solid")
    diagram.text(left - 16, y(g_y), "*g*_{y}", "read", "end")
    peak = top - 8 - high * F_x[0].max()
    for k in (3, 4):
        diagram.line((x(mu_x[k]), peak - 6), (x(mu_x[k]), peak - 20), kind="read thin")
    diagram.arrow((x(mu_x[3]) + 14, peak - 13), (x(mu_x[3]), peak - 13), kind="read solid")
    diagram.arrow((x(mu_x[4]) - 14, peak - 13), (x(mu_x[4]), peak - 13), kind="read solid")
    diagram.text((x(mu_x[3]) + x(mu_x[4])) / 2, peak - 27, "*δ*", "read")
    waist = top - 8 - high * F_x[0].max() * np.exp(-0.5)
    diagram.arrow((x(mu_x[0]) - 34, waist), (x(mu_x[0] - sigma2**0.5), waist), kind="read solid")
    diagram.arrow((x(mu_x[0]) + 28, waist), (x(mu_x[0] + sigma2**0.5), waist), kind="read solid")
    diagram.text(x(mu_x[0]) - 44, waist, "2*σ*", "read", "end")
    diagram.text(left, peak - 27, "the rows of *F*_{x}", anchor="start")
    diagram.text(right + 6, top - 12, "those of *F*_{y}", anchor="start", size=SMALL)
    diagram.brace(left, right, below + 34, 14)
    diagram.text((left + right) / 2, below + 58, "*A* pixels, counted from 0")
    return diagram


def read_product():
    diagram = Diagram(
        "Reading and writing as products of matrices",
        "Reading: F_y, N by B, times the image X, B by A, times F_x transposed, A by N, gives the glimpse, N by N. "
        "Writing: F_y transposed, B by N, times the patch w, N by N, times F_x, N by A, gives the stroke, B by A. The "
        "matrices are shown as pictures: a digit is read into twelve by twelve numbers and written back.",
        376,
    )
    p = np.array([[0.1, 0.0, np.log(0.8), np.log(0.75), 0.0]])
    X = grey_digits()[0][5] / 255
    (F_x, F_y, gamma), _ = filterbank.on_arrays(p, N=12, A=28, B=28)
    F_x, F_y, gamma = F_x[0], F_y[0], gamma[0]
    glimpse = gamma * F_y @ X @ F_x.T  # (11.1)
    stroke = F_y.T @ glimpse @ F_x / gamma  # (11.2)
    rows = {
        ("reading", "read", "*γ*"): [
            ("*F*_{y}", F_y, "*N* × *B*"), ("*X*", X, "*B* × *A*"), ("*F*^{T}_{x}", F_x.T, "*A* × *N*"),
            ("*r*", glimpse, "*N* × *N*"),
        ],
        ("writing", "write", "1/*γ*"): [
            ("*F*^{T}_{y}", F_y.T, "*B* × *N*"), ("*w*", glimpse, "*N* × *N*"), ("*F*_{x}", F_x, "*N* × *A*"),
            ("stroke", stroke, "*B* × *A*"),
        ],
    }  # fmt: skip
    for k, ((title, kind, factor), matrices) in enumerate(rows.items()):
        y, x = 102 + 196 * k, 62
        diagram.text(14, y - 82, title, kind, "start")
        diagram.text(34, y, factor)
        for place, (name, matrix, shape) in enumerate(matrices):
            height, width = (3 * size for size in matrix.shape)
            x += 34 * (place == 3) + 16 * (0 < place < 3)
            if place == 3:
                diagram.text(x - 17, y, "=")
            diagram.pixels(x, y - height / 2, 3, matrix / matrix.max(), kind)
            diagram.text(x + width / 2, y - 56, name)
            diagram.text(x + width / 2, y + 58, shape, "muted", size=SMALL)
            x += width
    return diagram


def tape():
    diagram = Diagram(
        "A tape, forward and backward",
        "Five nodes from top to bottom: a = 2 and b = 5, then ab = 10, a + ab = 12, and L = 120. Arrows lead down from "
        "each value to where it is used. Dotted arrows lead back up and carry gradients: ab hears 12 from L and 10 "
        "from a + ab, together 22; a hears 110 from ab and 10 from a + ab, together 120; b hears 44.",
        474,
    )
    a, b = (autodiff.Tensor(np.array(value)) for value in (2.0, 5.0))
    ab = a * b
    total = a + ab
    L = total * ab
    nodes = {"*a*": a, "*b*": b, "*ab*": ab, "*a* + *ab*": total, "*L*": L}
    whole = dict(zip(nodes, autodiff.backward(L, nodes.values()), strict=True))
    places = dict(zip(nodes, [(94, 40), (306, 40), (306, 170), (94, 300), (306, 434)], strict=True))
    uses = {  # of each result: the op, and what went in
        "*L*": (elementary.multiply, "*a* + *ab*", "*ab*"),
        "*a* + *ab*": (elementary.add, "*ab*", "*a*"),
        "*ab*": (elementary.multiply, "*a*", "*b*"),
    }
    half, heard = np.array([62, 25]), {name: [] for name in nodes}
    for result, (op, *inputs) in uses.items():
        _, op_backward = op.on_arrays(*(nodes[name].value for name in inputs))
        for name, gradient in zip(inputs, op_backward(whole[result]), strict=True):
            heard[name].append(f"{gradient:g}")
            start, end = (np.array(places[each], float) for each in (name, result))
            along = (end - start) / np.hypot(*(end - start))
            aside = 6 * np.array([-along[1], along[0]])

            def rim(middle, shift, direction):
                """Where a line beside the middle leaves the box, and a little further."""
                with np.errstate(divide="ignore"):
                    return middle + shift + direction * np.min((half + 3 - shift * np.sign(direction)) / abs(direction))

            diagram.arrow(rim(start, aside, along), rim(end, aside, -along))
            diagram.arrow(rim(end, -aside, -along), rim(start, -aside, along), kind="gradient")
            diagram.text(*((start + end) / 2 - 3.9 * aside), f"{gradient:g}", "gradient")
    for name, (x, y) in places.items():
        diagram.box(x, y, *(2 * half))
        diagram.text(x, y - 10, f"{name} = {nodes[name].value:g}")
        terms = f"{' + '.join(heard[name])} = " if len(heard[name]) > 1 else ""
        diagram.text(x, y + 11, f"{terms}{whole[name]:g}", "gradient", size=SMALL)
    diagram.text(14, 424, "values go down,", "muted", "start", SMALL)
    diagram.text(14, 444, "gradients come up", "gradient", "start", SMALL)
    return diagram


def bits_back():
    diagram = Diagram(
        "Bits back: one message with two parts, and a refund",
        "The sender has the image x, and another message to send anyway. Its bits choose z from q. The sender sends z, "
        "in a code made for the prior, minus log p of z nats long, and then x, in the decoder's code, L_x nats. The "
        "receiver reads z, then x, computes q from x, and gets the other message out of the choice of z: minus log q "
        "of z nats travelled free. What is left of the first part is L_z. The lengths are not to scale.",
        498,
    )
    for y, height, title in ((4, 122, "the sender"), (138, 206, "the line"), (356, 138, "the receiver")):
        diagram.add("rect", "band", x=4, y=y, width=WIDTH - 8, height=height, rx=6)
        diagram.text(14, y + 15, title, "muted", "start", SMALL)
    diagram.box(70, 52, 108, 34, "image *x*")
    diagram.box(70, 98, 108, 34, "other bits", "other")
    diagram.box(208, 52, 92, 34, "encoder")
    diagram.arrow((124, 52), (162, 52))
    diagram.box(338, 75, 92, 44, "*z* from *q*", "latent")
    diagram.arrow((254, 52), (270, 52), (270, 66), (292, 66))
    diagram.arrow((124, 98), (270, 98), (270, 84), (292, 84), kind="other")
    diagram.text(197, 112, "choose *z*", "muted", size=SMALL)
    diagram.text(264, 40, "*q*", anchor="start", size=SMALL)
    start, free, middle, end = 16, 146, 236, 384
    diagram.arrow((338, 97), (338, 132), (126, 132), (126, 172), kind="latent")
    diagram.box((start + middle) / 2, 195, middle - start, 42, "*z*, by the prior", "latent")
    diagram.box((middle + end) / 2, 195, end - middle, 42, "*x*, by the decoder")
    diagram.brace(start, middle, 222, 12)
    diagram.text((start + middle) / 2, 245, "−log *p*(*z*)")
    diagram.brace(middle, end, 222, 12)
    diagram.text((middle + end) / 2, 245, "*L*_{x} = −log *p*(*x* | *z*)", "cost", size=SMALL)
    diagram.box((start + free) / 2, 281, free - start, 36, "bits back", "other")
    diagram.box((free + middle) / 2, 281, middle - free, 36, "*L*_{z}", "cost")
    diagram.brace(start, free, 305, 12)
    diagram.text((start + free) / 2, 328, "−log *q*(*z*)")
    diagram.text((middle + end) / 2, 281, "paid: *L*_{x} + *L*_{z}", "cost")
    diagram.box(38, 404, 44, 34, "*z*", "latent")
    diagram.box(126, 404, 84, 34, "decoder")
    diagram.box(226, 404, 80, 34, "image *x*", size=SMALL)
    diagram.box(332, 404, 92, 34, "encoder")
    for left, right in ((60, 84), (168, 186), (266, 286)):
        diagram.arrow((left, 404), (right, 404))
    diagram.box(332, 460, 92, 38, "*z* from *q*", "latent")
    diagram.arrow((332, 421), (332, 441))
    diagram.text(340, 431, "*q*", anchor="start", size=SMALL)
    diagram.arrow((286, 452), (192, 452), kind="other")
    diagram.box(138, 452, 108, 34, "other bits", "other")
    diagram.arrow((38, 421), (38, 482), (260, 482), (260, 468), (286, 468), kind="latent")
    return diagram


def broadcast():
    diagram = Diagram(
        "Broadcasting: copies forward, sums backward",
        "Above, a column a of three numbers and a row b of four are stretched to a matrix of three by four and added: "
        "each number of a is copied along its row, each of b down its column. Below, backward: every row of dy is "
        "summed for da, every column for db.",
        468,
    )
    a, b = np.array([[10.0], [20.0], [30.0]]), np.array([1.0, 2.0, 3.0, 4.0])
    dy = np.array([[1.0, 0, 2, 0], [0, 1, 0, 1], [3, 0, 0, 0]])
    y, op_backward = elementary.add.on_arrays(a, b)
    da, db = op_backward(dy)
    wide, high, left = 46, 34, 144

    def cells(x, top, values, kind=""):
        for row, numbers in enumerate(np.atleast_2d(values)):
            for column, value in enumerate(numbers):
                diagram.box(
                    x + wide * (column + 0.5), top + high * (row + 0.5), wide, high, f"{value:g}", kind, round=0
                )

    for top, column, row, whole, names, kind in (
        (20, a, b, y, ("*a* (3, 1)", "*b* (4,)", "*y* (3, 4)"), ""),
        (258, da, db, dy, ("*da* (3, 1)", "*db* (4,)", "*dy* (3, 4)"), "gradient"),
    ):
        inner = top + high + 34
        cells(left, top, row, kind)
        cells(left - wide - 34, inner, column, kind)
        cells(left, inner, whole)
        for k in range(4):
            ends = ((left + wide * (k + 0.5), top + high + 3), (left + wide * (k + 0.5), inner - 3))
            diagram.arrow(*ends[:: -1 if kind else 1], kind=kind)
        for k in range(3):
            ends = ((left - 31, inner + high * (k + 0.5)), (left - 3, inner + high * (k + 0.5)))
            diagram.arrow(*ends[:: -1 if kind else 1], kind=kind)
        diagram.text(left - 8, top + high / 2, names[1], kind, "end")
        diagram.text(left - wide - 34, inner - 18, "sums" if kind else "copies", kind or "muted", size=SMALL)
        diagram.text(left - wide / 2 - 34, inner + 3 * high + 14, names[0], kind)
        diagram.text(left + 2 * wide, inner + 3 * high + 14, names[2])
    return diagram


def classifier():
    diagram = Diagram(
        "DRAW's encoder as a classifier",
        "From left to right, glimpses 1, 2 and 8 of the same scene, a hundred pixels wide, with the window of each as "
        "a dashed blue frame: the first spans the scene, the last is small and lies on the digit. In each step read "
        "takes the scene through the window and gives 144 numbers to an LSTM of 256 units. Its output goes to the next "
        "read, which makes the window from it, and to the next LSTM. After the eighth glimpse it becomes ten logits, "
        "and the cost of the right class.",
        436,
    )
    scene = Split("test").block(0)[0][0].reshape(SIDE, SIDE)
    windows = json.loads((RUNS / "attention-8.json").read_text(encoding="utf-8"))["shown"]["windows"][0]
    columns, scale = {1: 58, 2: 182, 8: 336}, 1.04
    for t, X in columns.items():
        diagram.text(X, 16, f"*t* = {t}")
        diagram.pixels(X - 52, 32, scale, scene)
        diagram.window(X - 52, 32, scale, np.array(windows[t - 1]), 12, "read", SIDE)
        diagram.arrow((X, 136), (X, 170), kind="read")
        diagram.text(X + 8, 153, "10,000", "muted", "start", SMALL)
        diagram.box(X, 187, 76, 34, "read", "read")
        diagram.arrow((X, 204), (X, 238))
        diagram.text(X + 8, 221, f"*r*_{{{t}}}, 144", "muted", "start", SMALL)
        diagram.box(X, 257, 76, 38, "LSTM")
    diagram.line((220, 257), (246, 257))
    for t, start, corner, end in ((1, 96, 126, 144), (7, 270, 280, 298)):
        diagram.arrow((start, 257), (end, 257))
        diagram.arrow((corner, 257), (corner, 187), (end, 187))
        diagram.dot(corner, 257)
        diagram.text(corner, 276, f"*h*_{{{t}}}", anchor="end")
    for y in (84, 257):
        diagram.text(259, y, "…")
    diagram.arrow((336, 276), (336, 310))
    diagram.text(344, 293, "*h*_{8}, 256", "muted", "start", SMALL)
    diagram.box(336, 329, 100, 38, "ten logits *a*", size=SMALL)
    diagram.arrow((336, 348), (336, 382))
    diagram.box(336, 403, 100, 42, "−log *p*_{y}", "cost")
    for k, words in enumerate(("each window is made from", "the state before, *h*_{t−1};", "*h*_{0} is zero")):
        diagram.text(20, 350 + 20 * k, words, "muted", "start", SMALL)
    return diagram


def game():
    diagram = Diagram(
        "The two networks of a GAN, and who gets which gradient",
        "On the left noise z, 64 numbers, goes to the generator, which makes an image of 196 pixels. On the right "
        "stands an image x of the data. Both go to the critic, which gives one number for each, the logit a. Two costs "
        "are made of it: the generator's, minus log D of its image, and the critic's, minus log D of x minus log of "
        "1 - D of the generator's image. The critic's gradient flows to the critic and ends there. The generator's "
        "flows through the critic, which it leaves as it is, and on to the generator.",
        448,
    )
    left, middle, right = 112, 200, 304
    z = np.random.default_rng(GAN_SAMPLE).standard_normal((1, gan.GENERATOR[0]))
    sample = gan.generate(gan.trained("gan"), z.astype(np.float32)).value.reshape(14, 14)
    diagram.box(left, 26, 120, 34, "*z* ~ N(0, *I*)", "latent")
    diagram.arrow((left, 43), (left, 76), kind="latent")
    diagram.text(left + 8, 59, "64", "muted", "start", SMALL)
    diagram.box(left, 95, 110, 38, "generator")
    diagram.arrow((left, 114), (left, 146))
    diagram.text(left + 8, 130, "196", "muted", "start", SMALL)
    for X, image, name in ((left, sample, "*G*(*z*)"), (right, gan.halved(minidraw.mnist().test[:1]), "*x*")):
        diagram.pixels(X - 28, 146, 4, image.reshape(14, 14))
        diagram.text(X + 36, 174, name, anchor="start")
    diagram.text(right, 130, "an image of the data", "muted", size=SMALL)
    diagram.arrow((left, 202), (left, 262), (middle - 66, 262))
    diagram.arrow((right, 202), (right, 262), (middle + 66, 262))
    diagram.box(middle, 262, 132, 44, "critic")
    diagram.line((middle, 284), (middle, 318))
    diagram.text(middle + 8, 300, "*a*; *D* = sigmoid(*a*)", "muted", "start", SMALL)
    diagram.dot(middle, 318)
    for X in (left - 12, right - 4):
        diagram.arrow((middle, 318), (X, 318), (X, 340))
    diagram.box(left - 12, 366, 160, 52, "−log *D*(*G*(*z*))", "cost")
    diagram.box(right - 4, 366, 180, 52, "", "cost")
    diagram.text(right - 4, 355, "−log *D*(*x*)")
    diagram.text(right - 4, 377, "−log(1 − *D*(*G*(*z*)))")
    diagram.text(left - 12, 408, "the generator's cost", "muted", size=SMALL)
    diagram.text(right - 4, 408, "the critic's cost", "muted", size=SMALL)
    diagram.arrow((370, 340), (370, 274), (middle + 66, 274), kind="gradient")
    diagram.arrow((50, 340), (50, 274), (middle - 66, 274), kind="gradient")
    diagram.arrow((middle - 66, 250), (28, 250), (28, 95), (left - 55, 95), kind="gradient")
    diagram.text(WIDTH / 2, 433, "dotted: the gradients; each changes one network", "gradient", size=SMALL)
    return diagram


def family():
    diagram = Diagram(
        "DRAW, a deep VAE and a diffusion model as one picture",
        "Three columns with the same arrows. In each, the state of the drawing goes to q, which also sees the image x, "
        "and, but for DRAW, to p, which does not. From q and p comes a KL, the cost of the step. The latents z are "
        "drawn from q. In DRAW and the deep VAE f makes a change of z and the state, which is added to the state; in "
        "the diffusion model z itself is the next state. After the last step the image is paid for, L_x. Below stands "
        "what the maps are. DRAW: q is read and an LSTM, p is N(0, I), f an LSTM and write, with shared weights. Deep "
        "VAE: all three belong to layer t, with weights of its own. Diffusion: q adds noise, p is a denoiser, there is "
        "no f; the weights are shared, and told t.",
        606,
    )
    columns = {
        68: ("DRAW", "blank page", "*c*_{t−1}", "*z*_{t}", "*c*_{t}",
             ("*q*: read, LSTM", "*p*: N(0, *I*)", "*f*: LSTM, write", "weights: shared")),
        200: ("deep VAE", "a start", "*s*_{t−1}", "*z*_{t}", "*s*_{t}",
              ("*q*: layer *t*", "*p*: layer *t*", "*f*: layer *t*", "weights: its own")),
        332: ("diffusion", "noise", "*z*_{t}", "*z*_{t−1}", "*z*_{t−1}",
              ("*q*: known", "*p*: denoiser", "no *f*", "shared, told *t*")),
    }  # fmt: skip
    for X, (name, start, state, latents, following, maps) in columns.items():
        left, right, edge = X - 28, X + 28, X + 58
        diffusion = name == "diffusion"
        diagram.add("rect", "band", x=X - 63, y=66, width=126, height=318, rx=6)
        diagram.text(X, 16, name)
        diagram.text(X, 37, start, "muted", size=SMALL)
        diagram.arrow((X, 48), (X, 77))
        diagram.box(X, 92, 64, 30, state, "latent" if diffusion else "")
        diagram.line((X, 107), (X, 124))
        for middle in (left, right)[: 1 if name == "DRAW" else 2]:
            diagram.arrow((X, 124), (middle, 124), (middle, 146))
        if name != "DRAW":
            diagram.dot(X, 124)
        diagram.text(X - 47, 112, "*x*", "read")
        diagram.arrow((X - 47, 122), (X - 47, 146), kind="read")
        diagram.box(left, 162, 50, 32, "*q*", "read")
        diagram.box(right, 162, 44, 32, "*p*")
        diagram.box(right, 216, 46, 30, "KL", "cost")
        diagram.arrow((right, 178), (right, 201))
        diagram.arrow((left + 10, 178), (left + 10, 216), (right - 23, 216))
        diagram.arrow((left - 8, 178), (left - 8, 244), kind="latent")
        diagram.box(left, 260, 54, 32, latents, "latent")
        if diffusion:
            diagram.arrow((left, 276), (left, 393), kind="latent")
        else:
            diagram.arrow((left, 276), (left, 298), kind="latent")
            diagram.box(left, 314, 50, 32, "*f*", "write")
            diagram.arrow((left, 330), (left, 347), kind="write")
            diagram.arrow((X + 32, 92), (edge, 92), (edge, 358), (left + 11, 358))
            diagram.arrow((edge, 314), (left + 25, 314))
            diagram.dot(edge, 314)
            diagram.node(left, 358, "+")
            diagram.arrow((left, 369), (left, 393))
        diagram.box(left, 408, 54, 30, following, "latent" if diffusion else "")
        diagram.arrow((left, 423), (left, 455))
        diagram.text(left + 8, 439, "at the end", "muted", "start", SMALL)
        diagram.box(left, 471, 54, 32, "*L*_{x}", "cost")
        for k, words in enumerate(maps):
            diagram.text(X, 520 + 22 * k, words, "muted" if k == 3 else "", size=SMALL)
    return diagram


def chain(diagram, middles, y, out, kind=""):
    """Arrows from each of the boxes at (x, y) to every later one; `out` is -1 for arrows above the boxes, 1 below."""
    last = len(middles) - 1
    for i, start in enumerate(middles[:-1]):
        level = y + out * (34 + 9 * (last - 1 - i))
        ends = [x - 10 + 16 * i / last for x in middles[i + 1 :]]
        diagram.line((start + 14, y + 16 * out), (start + 14, level), (ends[-1], level), kind=kind)
        for end in ends:
            diagram.arrow((end, level), (end, y + 17 * out), kind=kind)


def darn():
    diagram = Diagram(
        "DARN: bits in a chain, pixels in a chain",
        "Above, four bits h_1 to h_4 in a row; from each an arrow leads to every later one, and to none before it. "
        "Below, five pixels x_1 to x_5 in a row, with arrows to every later one likewise. From the bits arrows lead "
        "down to all pixels. At the right, dashed, the encoder leads from the pixels up to the bits; it is used only "
        "while the model is trained.",
        398,
    )
    bits, pixels, above, below, bus = [58, 130, 202, 274], [40, 103, 166, 229, 292], 112, 264, 186
    diagram.text(14, 20, "*p*(*h*_{j} | *h*_{<j})", "latent", "start")
    diagram.text(130, 20, "bits, drawn one after the other", "muted", "start", SMALL)
    chain(diagram, bits, above, -1, "latent")
    for j, x in enumerate(bits, 1):
        diagram.line((x, above + 16), (x, bus), kind="latent")
        diagram.box(x, above, 44, 32, f"*h*_{{{j}}}", "latent")
    diagram.line((pixels[0], bus), (pixels[-1], bus), kind="latent")
    chain(diagram, pixels, below, 1)
    for i, x in enumerate(pixels, 1):
        diagram.arrow((x, bus), (x, below - 17), kind="latent")
        diagram.box(x, below, 44, 32, f"*x*_{{{i}}}")
    diagram.text(14, 380, "*p*(*x*_{i} | *x*_{<i}, *h*)", "", "start")
    diagram.text(150, 380, "pixels, drawn one after the other", "muted", "start", SMALL)
    diagram.arrow((314, below), (352, below), (352, bus + 17), kind="other")
    diagram.box(352, bus, 84, 34, "encoder", "other", SMALL)
    diagram.arrow((352, bus - 17), (352, above), (297, above), kind="other")
    diagram.text(344, 146, "*q*(*h* | *x*)", "muted", "end", SMALL)
    return diagram


def swap():
    diagram = Diagram(
        "Two samplers for the same loop",
        "Two columns. In both the encoder's h at step t comes in from above and z_t goes out to the decoder below. "
        "Left, two maps make mu and log sigma of it, and z_t is drawn from their Gaussian; what it costs is the KL to "
        "N(0, I). Right, one map makes the logits a, and the bits of z_t are drawn from them; what they cost is paid "
        "to a prior, which also looks at the decoder's h of the step before.",
        344,
    )
    left, right, top, middle, sampled, below = 92, 274, 62, 122, 196, 318
    for X, name in ((left, "Gaussian numbers"), (right, "bits")):
        diagram.text(X, 18, name)
        diagram.text(X + 8, top - 14, "*h*^{enc}_{t}", anchor="start")
        diagram.arrow((X, sampled + 16), (X, below - 17), kind="latent")
        diagram.box(X, below, 88, 34, "decoder")
    diagram.line((left, 34), (left, top + 12))
    for X, name in ((left - 36, "*\u03bc*_{t}"), (left + 36, "log *\u03c3*_{t}")):
        diagram.arrow((left, top + 12), (X, top + 12), (X, middle - 17))
        diagram.box(X, middle, 60, 34, name)
        diagram.arrow((X, middle + 17), (X, sampled - 36), (left, sampled - 36), (left, sampled - 17), kind="latent")
    diagram.box(left, sampled, 60, 32, "*z*_{t}", "latent")
    diagram.arrow((right, 34), (right, middle - 17))
    diagram.box(right, middle, 60, 34, "*a*_{t}")
    diagram.arrow((right, middle + 17), (right, sampled - 17), kind="latent")
    bits = [right - 57, right - 19, right + 19, right + 57]
    for X in bits:
        diagram.box(X, sampled, 34, 32, "", "latent")
    for X, bit in zip(bits, "1011", strict=True):
        diagram.text(X, sampled, bit)
    for start, edge in ((left - 30, left - 54), (right + 74, right + 94)):
        diagram.arrow((start, sampled), (edge, sampled), (edge, 244), kind="other")
    diagram.box(left - 54, 260, 64, 30, "N(0, *I*)", "cost")
    diagram.box(right + 76, 260, 64, 30, "prior", "cost")
    diagram.text(right - 96, 260, "*h*^{dec}_{t\u22121}", anchor="start")
    diagram.arrow((right - 52, 260), (right + 43, 260))
    return diagram


def growth():
    diagram = Diagram(
        "A model that grows in training",
        "Three rows of small boxes, one box for each step of the loop. The first row has 16 boxes and ends in the "
        "canvas c_16, the second 32 and c_32, the third 64 and c_64: so many steps are trained in the first half, the "
        "next quarter and the last quarter of the training.",
        202,
    )
    left, width = 16, 5.2
    for y, T, share in ((44, 16, "the first half"), (108, 32, "the next quarter"), (172, 64, "the last quarter")):
        diagram.text(left, y - 25, f"{share} of the training: *T* = {T}", anchor="start")
        for t in range(T):
            diagram.box(left + (t + 0.5) * width, y, width - 1.2, 18, kind="latent", round=1)
        diagram.text(left + T * width + 8, y, f"*c*_{{{T}}}", anchor="start")
    return diagram


def diagrams():
    """Every diagram by the name of its file."""
    return {
        "draw-unrolled": draw_unrolled(),
        "draw-generate": draw_generate(),
        "tape": tape(),
        "broadcast": broadcast(),
        "lstm": lstm(),
        "lstm-backward": lstm_backward(),
        "bits-back": bits_back(),
        "vae": vae(),
        "filterbank": filter_geometry(),
        "read-product": read_product(),
        "classifier": classifier(),
        "gan": game(),
        "family": family(),
        "darn": darn(),
        "swap": swap(),
        "growth": growth(),
    } | {f"here-{chapter:02}": here(chapter) for chapter in HERE}


def main():
    for name, diagram in diagrams().items():
        (FIGURES / f"{name}.svg").write_text(diagram.svg(), encoding="utf-8", newline="\n")
        print(f"{name}.svg")


if __name__ == "__main__":
    main()
