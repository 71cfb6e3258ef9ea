"""Every picture, as a function from arrays to a Figure; none shows or saves anything by itself.

Pictures of images are (..., B, A) in [0, 1], or (..., B, A, 3) in colour; windows are the (..., 5) vectors of
eq. (21). A Figure is displayed by a notebook that it is returned in, and written with `figure.savefig(path)`.
"""

import io
import textwrap
from itertools import pairwise

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minidraw.ops.attention import filterbank, window, write

READ, WRITE = "#0072b2", "#d55e00"  # blue, dashed; vermilion, solid
COLORS = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#666666", "#b58900"  # told apart by colour-blind readers, too
PALE = "#cfe2f0"
TILE = 0.62  # the width of an image, in inches
TYPE, SMALL = 10, 8.5  # sizes of type, in points


class Picture(Figure):
    """A Figure on white paper, legible in light and dark pages, that a notebook shows without pyplot."""

    def __init__(self, width, height):
        super().__init__(figsize=(width, height), facecolor="white", layout="constrained", dpi=150)

    def _repr_png_(self):
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def _aspect(B, A):
    """Height over width of an image's place; a very long image gets less than it asks for."""
    return min(max(B / A, 0.2), 5)


def _mosaic(axes, images, columns):
    """Show images (count, B, A[, 3]) in rows of `columns`, a grey line between neighbours; returns the artist."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes.imshow(_tiled(images, columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _corner(k, columns, B, A):
    """Column and row of the first pixel of the k-th image in a mosaic."""
    return k % columns * (A + 1) + 1, k // columns * (B + 1) + 1


def _tiled(images, columns):
    count, B, A = images.shape[:3]
    rows = -(-count // columns)
    tiled = np.full((rows * (B + 1) + 1, columns * (A + 1) + 1, *images.shape[3:]), 0.45)
    for k, image in enumerate(images):
        left, top = _corner(k, columns, B, A)
        tiled[top : top + B, left : left + A] = image
    return tiled


def _draw_windows(axes, windows, N, columns, B, A, color, points_per_pixel):
    """On each image of a mosaic its window (count, 5), through the outermost filters' centres, sigma/3 thick."""
    g, sigma2, delta, _ = window(windows, N=N, A=A, B=B)
    side = (N - 1) * delta
    for k in range(len(windows)):
        corner = np.array(_corner(k, columns, B, A))
        thickness = np.clip(sigma2[k] ** 0.5 / 3 * points_per_pixel, 0.5, 4)
        frame = Rectangle(corner + g[k] - side[k] / 2, side[k], side[k], fill=False, color=color, linewidth=thickness)
        frame.set_linestyle((0, (2.5, 1.2)) if color == READ else "-")
        axes.add_patch(frame)
        frame.set_clip_path(Rectangle(corner - 0.5, A, B, transform=axes.transData))


def grid(images, title=""):
    """Images (count, B, A[, 3]) side by side, in as square a grid as their number allows."""
    columns = int(np.ceil(len(images) ** 0.5))
    B, A = images.shape[1:3]
    figure = Picture(max(TILE * columns, 3), TILE * -(-len(images) // columns) * _aspect(B, A) + 0.35)
    axes = figure.subplots()
    _mosaic(axes, images, columns)
    axes.set_title(title, fontsize=TYPE)
    return figure


def steps(images, windows=None, N=None, color=WRITE, title="", columns=10):
    """A row for each image, a column for each t: images (T, count, B, A[, 3]), at most `columns` evenly spread steps.

    With `windows` (T, count, 5) and N, the window of each step as a rectangle through its outermost filters; the
    thicker the line, the wider the filters (a third of their sigma). For the write window give the canvases; for
    the read window the input, repeated T times, and `color=plots.READ`.
    """
    T, count, B, A = images.shape[:4]
    shown = np.unique(np.linspace(0, T - 1, min(T, columns)).round().astype(int))
    figure = Picture(max(TILE * len(shown), 3) + 0.2, TILE * count * _aspect(B, A) + 0.6)
    axes = figure.subplots()

    def by_image(array):
        return array[shown].swapaxes(0, 1).reshape(-1, *array.shape[2:])

    _mosaic(axes, by_image(images), len(shown))
    if windows is not None:
        _draw_windows(axes, by_image(windows), N, len(shown), B, A, color, TILE * 72 / A)
    axes.set_xticks(
        [_corner(k, len(shown), B, A)[0] + A / 2 for k in range(len(shown))], [f"t = {t + 1}" for t in shown]
    )
    axes.tick_params(length=0, labelsize=SMALL, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_title(title, fontsize=TYPE)
    return figure


def animation(means, windows=None, N=None):
    """The drawing of several images as an animation: means (T, count, B, A[, 3]), windows (T, count, 5) or None.

    Ten steps take two seconds, and 64 five; then the last canvas stays, without windows. Save it with
    `.save(path, writer="pillow")`.
    """
    T, count, B, A = means.shape[:4]
    columns = int(np.ceil(count**0.5))
    figure = Figure(figsize=(0.75 * columns, 0.75 * -(-count // columns) * _aspect(B, A)), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    artist = _mosaic(axes, means[0], columns)

    def frame(t):
        artist.set_data(_tiled(means[min(t, T - 1)], columns))
        for patch in list(axes.patches):
            patch.remove()
        if windows is not None and t < T:
            _draw_windows(axes, windows[t], N, columns, B, A, WRITE, 0.75 * 72 / A)
        return [artist]

    interval = min(200, max(20, round(5000 / T, -1)))  # milliseconds; GIF counts in tens
    return FuncAnimation(figure, frame, frames=T + round(1600 / interval), init_func=lambda: [], interval=interval)


def reconstructions(originals, means):
    """Originals (count, B, A[, 3]) above their reconstructions, sigmoid(c_T) of the same shape."""
    count, B, A = originals.shape[:3]
    figure = Picture(TILE * count + 0.9, TILE * 2 * _aspect(B, A) + 0.35)
    axes = figure.subplots()
    _mosaic(axes, np.concatenate([originals, means]), count)
    axes.set_yticks([B / 2 + 1, B + 1 + B / 2 + 1], ["original", "drawn again"], fontsize=TYPE)
    axes.tick_params(length=0)
    return figure


def white_patches(windows, N, A, B, title=""):
    """What a white patch leaves through the write filters of windows (T, count, 5), each brightest at 1.

    This is where a write reaches (and, for a read window, where a read looks): filters far apart leave dots, near
    ones a blot.
    """
    T, count = windows.shape[:2]
    (F_x, F_y, gamma), _ = filterbank.on_arrays(windows.reshape(-1, 5), N=N, A=A, B=B)
    strokes, _ = write.on_arrays(np.ones((T * count, N * N), F_x.dtype), F_x, F_y, gamma)
    strokes /= strokes.max(axis=1, keepdims=True)
    return steps(strokes.reshape(T, count, B, A), title=title)


def _name_at_the_curve(axes, curves):
    """Write each label of `curves`, (label, color, last y), at the right end of its curve, none over another."""
    to_pixels, (low, high) = axes.transData.transform, axes.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    heights = [(to_pixels((axes.get_xlim()[1], y))[1] - low) / (high - low) for _, _, y in curves]
    rooms = [0.085 * (label.count("\n") + 1) for label, _, _ in curves]
    order = sorted(range(len(curves)), key=lambda k: -heights[k])
    for _ in range(100):
        for above, below in pairwise(order):
            overlap = (rooms[above] + rooms[below]) / 2 - (heights[above] - heights[below])
            heights[above] += max(0, overlap / 2)
            heights[below] -= max(0, overlap / 2)
    for (label, color, _), height in zip(curves, heights, strict=True):
        axes.text(1.02, height, label, color=color, fontsize=TYPE, va="center", transform=axes.transAxes)


def loss_curves(metrics, title=""):
    """The bound and its two parts against the step, in nats an image.

    `metrics` maps "step", "L_x", "L_z" to equally long sequences, and may map "validation" to (steps, bounds).
    """
    figure = Picture(6, 3.4)
    axes, named = figure.subplots(), []
    step, L_x, L_z = (np.asarray(metrics[name]) for name in ("step", "L_x", "L_z"))
    smooth = max(1, len(step) // 100)  # a running mean, over a hundredth of the run
    for values, label, color in [
        (L_x + L_z, "bound, $L_x + L_z$", COLORS[0]),
        (L_x, "$L_x$, to finish\nthe image", COLORS[1]),
        (L_z, "$L_z$, to send\nthe latents", COLORS[2]),
    ]:
        mean = np.convolve(values, np.ones(smooth) / smooth, mode="valid")
        axes.plot(step[smooth - 1 :], mean, color=color, linewidth=1.4)
        named.append((label, color, mean[-1]))
    if "validation" in metrics and len(metrics["validation"][0]):
        axes.plot(*metrics["validation"], "o", color="black", markersize=3)
        named.append(("• bound, on\nvalidation images", "black", metrics["validation"][1][-1]))
    last = (L_x + L_z)[-smooth:].mean()
    axes.set(xlabel="training step", ylabel="nats an image", xlim=(0, step[-1]), ylim=(0, max(2.5 * last, 200)))
    axes.set_title(title, fontsize=TYPE)
    axes.grid(color="#dddddd", linewidth=0.5)
    _name_at_the_curve(axes, named)
    return figure


def kl_by_step(L_z_by_step, title=""):
    """The nats that each step's latents cost, KL(q(z_t) || N(0, I)), (T,): when the drawing is decided."""
    figure = Picture(5, 2.8)
    axes = figure.subplots()
    axes.bar(np.arange(1, len(L_z_by_step) + 1), L_z_by_step, color=COLORS[2])
    axes.set(xlabel="step t", ylabel="KL, nats an image")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(title, fontsize=TYPE)
    return figure


# The figures of the tutorial: as general as its chapters need them.


def lines(curves, xlabel, ylabel, title="", xscale="linear", yscale="linear", marker="", ylim=None):
    """Curves in one frame: `curves` maps each label to (x, y), equally long sequences."""
    figure = Picture(5.6, 3.3)
    axes, named = figure.subplots(), []
    for (label, (x, y)), color in zip(curves.items(), COLORS, strict=False):
        axes.plot(x, y, color=color, linewidth=1.4, marker=marker, markersize=4)
        named.append(("\n".join(textwrap.wrap(label, 20)), color, y[-1]))
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale, ylim=ylim)
    axes.set_title(title, fontsize=TYPE)
    axes.grid(color="#dddddd", linewidth=0.5)
    _name_at_the_curve(axes, named)
    return figure


def points(clouds, marked, title=""):
    """Points of the plane, a frame for each cloud, a colour for those that are `marked`, (count,) booleans.

    `clouds` maps the label of each to (count, 2).
    """
    figure = Picture(2.2 * len(clouds), 2.7)
    for axes, (label, cloud) in zip(np.ravel(figure.subplots(1, len(clouds))), clouds.items(), strict=True):
        for chosen, color in (~marked, "#7fb2d9"), (marked, COLORS[1]):
            axes.scatter(*cloud[chosen].T, s=3, color=color)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(label, fontsize=TYPE)
        axes.tick_params(labelsize=SMALL)
    figure.suptitle(title, fontsize=TYPE)
    return figure


def rows(images, columns=None, title=""):
    """Rows of images: `images` maps the label of each to (count, B, A[, 3]); `columns` are labels above."""
    stacked = np.concatenate(list(images.values()))
    count, (B, A) = len(stacked) // len(images), stacked.shape[1:3]
    figure = Picture(TILE * count + 0.09 * max(map(len, images)) + 0.3, TILE * len(images) * _aspect(B, A) + 0.6)
    axes = figure.subplots()
    _mosaic(axes, stacked, count)
    axes.set_yticks([k * (B + 1) + 1 + B / 2 for k in range(len(images))], list(images), fontsize=TYPE)
    if columns is not None:
        axes.set_xticks([k * (A + 1) + 1 + A / 2 for k in range(count)], columns, fontsize=SMALL)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_title(title, fontsize=TYPE)
    return figure


def tables(arrays, title=""):
    """Small matrices side by side, their numbers in the cells: `arrays` maps a label to a matrix.

    A label that begins with a space stands between two matrices, for a sign; its matrix is not looked at.
    """
    shapes = [(0, 0.6) if label.startswith(" ") else np.shape(a) for label, a in arrays.items()]
    figure = Picture(0.42 * (sum(shape[1] for shape in shapes) + len(shapes)), 0.42 * max(s[0] for s in shapes) + 0.9)
    axes = figure.subplots()
    middle, left = max(shape[0] for shape in shapes) / 2, 0.5
    for (label, array), (height, width) in zip(arrays.items(), shapes, strict=True):
        if not height:
            axes.text(left + width / 2, middle, label.strip(), ha="center", va="center", fontsize=14)
        for (i, j), number in np.ndenumerate(array) if height else ():
            corner = left + j, middle - height / 2 + i
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=PALE, edgecolor=COLORS[0], linewidth=0.8))
            axes.text(corner[0] + 0.5, corner[1] + 0.5, f"{number:g}", ha="center", va="center", fontsize=TYPE)
        if height:
            axes.text(left + width / 2, middle + height / 2 + 0.6, label, ha="center", va="center", fontsize=TYPE)
        left += width + 1
    axes.set(xlim=(0, left - 0.5), ylim=(2 * middle + 1.1, -0.2), aspect="equal")
    axes.axis("off")
    axes.set_title(title, fontsize=TYPE)
    return figure


def arcs(names, edges, title=""):
    """A graph whose nodes stand in order of their creation, left to right: `edges` are pairs (from, to) of indices."""
    figure = Picture(0.95 * len(names) + 0.6, 2.4)
    axes = figure.subplots()
    for tail, head in edges:
        height = 0.32 * (head - tail) ** 0.7
        x = np.linspace(tail, head, 40)
        axes.plot(x, height * np.sin(np.pi * (x - tail) / (head - tail)), color=COLORS[0], linewidth=1.1, zorder=1)
        axes.plot(head - 0.13, 0.13 * height * np.pi / (head - tail), marker=">", color=COLORS[0], markersize=4)
    for k, name in enumerate(names):
        axes.text(k, 0, name, ha="center", va="center", fontsize=TYPE, bbox={"boxstyle": "round", "fc": PALE})
        axes.text(k, -0.32, f"{k}", ha="center", va="center", fontsize=SMALL, color="#666666")
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(-0.5, 0.32 * (len(names) - 1) ** 0.7 + 0.1))
    axes.axis("off")
    axes.set_title(title, fontsize=TYPE)
    return figure


def waterfall(amounts, xlabel, title=""):
    """What adds up to a whole: `amounts` maps each part to its amount, from above; the last bar is the sum."""
    figure = Picture(6.4, 0.36 * len(amounts) + 1.4)
    axes = figure.subplots()
    names, sizes = [*amounts, "in all"], [*amounts.values(), sum(amounts.values())]
    starts = [*np.cumsum([0, *sizes[:-2]]), 0]
    colors = ["#7fb2d9"] * len(amounts) + [COLORS[0]]
    axes.barh(range(len(names)), sizes, left=starts, color=colors)
    for k, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        axes.text(max(start, start + size), k, f" {size:.3g}", ha="left", va="center", fontsize=SMALL)
    axes.set_xlim(0, 1.12 * max(np.add(starts, np.maximum(sizes, 0))))
    axes.set_yticks(range(len(names)), names, fontsize=TYPE)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    axes.set_title(title, fontsize=TYPE)
    return figure
