"""The pictures: what they show, by their numbers."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minidraw import plots
from minidraw.ops.attention import window


@pytest.fixture
def drawing(rng):
    """(T, count, B, A) means and (T, count, 5) windows."""
    return rng.random((6, 4, 8, 10)), 0.3 * rng.standard_normal((6, 4, 5))


def shown(figure):
    """The one image that a figure shows."""
    (axes,) = figure.axes
    (image,) = axes.images
    return np.asarray(image.get_array())


def test_a_grid_holds_every_image_in_order(rng):
    images = rng.random((5, 8, 10))
    mosaic = shown(plots.grid(images, "five"))
    for k, image in enumerate(images):
        top, left = k // 3 * 9 + 1, k % 3 * 11 + 1
        np.testing.assert_array_equal(mosaic[top : top + 8, left : left + 10], image)


def test_points_have_a_frame_for_each_cloud_and_a_colour_for_the_marked(rng):
    clouds, marked = {"one": rng.random((6, 2)), "two": rng.random((6, 2))}, np.arange(6) < 2
    figure = plots.points(clouds, marked, "two clouds")
    for axes, (label, cloud) in zip(figure.axes, clouds.items(), strict=True):
        others, chosen = (np.asarray(artist.get_offsets()) for artist in axes.collections)
        assert axes.get_title() == label
        np.testing.assert_array_equal(chosen, cloud[:2])
        np.testing.assert_array_equal(others, cloud[2:])


def test_colour_goes_in_as_it_is(rng):
    images = rng.random((2, 4, 4, 3))
    assert shown(plots.grid(images)).shape == (6, 11, 3)


def test_steps_has_a_row_for_each_image_and_a_column_for_each_t(drawing):
    means, windows = drawing
    figure = plots.steps(means, windows, N=3, columns=3)  # t = 1, 3 or 4, 6
    mosaic = shown(figure)
    np.testing.assert_array_equal(mosaic[1:9, 1:11], means[0, 0])
    np.testing.assert_array_equal(mosaic[1:9, 23:33], means[5, 0])
    np.testing.assert_array_equal(mosaic[28:36, 23:33], means[5, 3])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[0] == "t = 1" and labels[-1] == "t = 6" and len(labels) == 3
    assert len(figure.axes[0].patches) == 12


def test_a_rectangle_lies_where_the_window_is(drawing):
    means, windows = drawing
    figure = plots.steps(means[:1, :1], windows[:1, :1], N=3)
    (rectangle,) = figure.axes[0].patches
    g, sigma2, delta, _ = (array[0] for array in window(windows[0, :1], N=3, A=10, B=8))
    np.testing.assert_allclose(rectangle.get_center(), g + 1)  # the mosaic begins with a line one pixel wide
    np.testing.assert_allclose([rectangle.get_width(), rectangle.get_height()], 2 * delta)


def test_wider_filters_have_thicker_lines(drawing):
    means, windows = drawing
    windows = np.zeros((1, 3, 5))
    windows[0, :, 2] = [-2, 0, 2]  # log sigma^2
    patches = plots.steps(means[:1, :3], windows, N=3).axes[0].patches
    widths = [patch.get_linewidth() for patch in patches]
    assert widths[0] < widths[1] < widths[2]


def test_the_animation_draws_and_then_rests(drawing, tmp_path):
    means, windows = drawing
    plots.animation(means, windows, N=3).save(tmp_path / "drawing.gif", writer="pillow")
    from PIL import Image

    with Image.open(tmp_path / "drawing.gif") as gif:
        frames, milliseconds = [], gif.info["duration"]
        for k in range(gif.n_frames):
            gif.seek(k)
            frames.append(np.asarray(gif.convert("RGB")))
    assert len(frames) >= 7 and not np.array_equal(frames[0], frames[1])
    vermilion = [np.any(f[..., 0] > f[..., 2] + 100.0) for f in frames]
    assert all(vermilion[:6]) and not vermilion[-1] and milliseconds == 200

    many = plots.animation(np.tile(means[:, :1], (11, 1, 1, 1))[:64])
    many.save(tmp_path / "many.gif", writer="pillow")
    with Image.open(tmp_path / "many.gif") as gif:
        assert gif.info["duration"] == 80


def test_reconstructions_stand_below_their_originals(rng):
    originals, means = rng.random((3, 8, 10)), rng.random((3, 8, 10))
    mosaic = shown(plots.reconstructions(originals, means))
    np.testing.assert_array_equal(mosaic[1:9, 12:22], originals[1])
    np.testing.assert_array_equal(mosaic[10:18, 12:22], means[1])


def test_a_white_patch_is_brightest_where_the_window_is():
    windows = np.zeros((1, 1, 5))
    windows[0, 0] = [0.5, -0.5, 0, np.log(0.2), 0]
    stroke = shown(plots.white_patches(windows, N=3, A=20, B=20))[1:21, 1:21]
    y, x = np.unravel_index(stroke.argmax(), stroke.shape)
    assert stroke.max() == 1 and abs(x - (9.5 + 10.5 / 2)) <= 2 and abs(y - (9.5 - 10.5 / 2)) <= 2


def test_loss_curves_show_the_bound_and_its_parts():
    step = np.arange(1, 301)
    metrics = {"step": step, "L_x": 200.0 / step, "L_z": 0.1 * step, "validation": ([100, 200], [12.0, 21.0])}
    figure = plots.loss_curves(metrics, "title")
    names = {text.get_color(): text.get_text().split(",")[0] for text in figure.axes[0].texts}
    lines = [(names[line.get_color()], line.get_ydata()) for line in figure.axes[0].lines]
    (_, total), (_, L_x), (_, L_z), (_, validation) = lines
    assert [name for name, _ in lines] == ["bound", "$L_x$", "$L_z$", "• bound"]
    np.testing.assert_allclose(total, L_x + L_z)
    assert list(validation) == [12.0, 21.0]
    assert figure.axes[0].get_xlabel() == "training step" and "nats" in figure.axes[0].get_ylabel()


def test_names_at_curves_do_not_cover_one_another():
    curves = {f"a curve with a long name, number {k}": ([0, 1], [0, 1 + 0.001 * k]) for k in range(5)}
    figure = plots.lines(curves, "x", "y")
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 5 and [text.get_color() for text in figure.axes[0].texts] == list(plots.COLORS[:5])
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_the_read_window_is_dashed_and_the_write_window_solid(drawing):
    styles = {}
    for color in (plots.READ, plots.WRITE):
        windows = np.zeros((1, 1, 5))
        figure = plots.steps(np.zeros((1, 1, 8, 8)), windows, 2, color)
        (styles[color],) = {patch.get_linestyle() for patch in figure.axes[0].patches}
    assert styles[plots.WRITE] == "-" != styles[plots.READ]


def test_kl_by_step_has_a_bar_for_each_t():
    figure = plots.kl_by_step([1.0, 3.0, 2.0])
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1, 3, 2]


def test_a_notebook_shows_a_figure_without_pyplot(drawing):
    figure = plots.grid(drawing[0][0])
    assert isinstance(figure, Figure) and figure._repr_png_().startswith(b"\x89PNG")
    assert figure.get_facecolor() == (1, 1, 1, 1)  # black on white, whatever the page
