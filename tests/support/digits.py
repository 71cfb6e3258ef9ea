"""Digits as a hand draws them, and who tells which digit an image is."""

import functools

import numpy as np

import minidraw
from minidraw.images import mnist_labels


def _arc(x, y, rx, ry, start, stop, count=14):
    """Points on an ellipse around (x, y), its angles in quarter turns from the right, clockwise on the screen."""
    angles = np.linspace(start, stop, count) * np.pi / 2
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1).tolist()


def _bowls():
    """A three: two half circles, open to the left."""
    return _arc(0.47, 0.34, 0.18, 0.15, -1.8, 1) + _arc(0.47, 0.68, 0.21, 0.19, -1, 1.8)


STROKES = {  # each a list of strokes, of points (x, y) on a sheet of [0, 1] by [0, 1]
    0: [_arc(0.5, 0.5, 0.2, 0.32, -1, 3, 28)],
    1: [[[0.55, 0.15], [0.52, 0.4], [0.48, 0.62], [0.45, 0.86]]],
    2: [_arc(0.48, 0.34, 0.2, 0.17, -2, 0.5) + [[0.42, 0.66], [0.27, 0.83], [0.5, 0.82], [0.76, 0.84]]],
    3: [_bowls()],
    4: [[[0.36, 0.18], [0.32, 0.36], [0.3, 0.52], [0.5, 0.53], [0.7, 0.5]], [[0.68, 0.16], [0.64, 0.5], [0.58, 0.88]]],
    5: [
        [[0.36, 0.18], [0.34, 0.32], [0.32, 0.46]] + _arc(0.46, 0.64, 0.19, 0.2, -1.3, 1.7),
        [[0.36, 0.18], [0.7, 0.16]],
    ],
    6: [[[0.58, 0.14], [0.46, 0.3], [0.37, 0.5]] + _arc(0.5, 0.68, 0.15, 0.16, -2, 2, 22)],
    7: [[[0.28, 0.22], [0.5, 0.21], [0.72, 0.2], [0.62, 0.42], [0.54, 0.62], [0.46, 0.88]]],
    8: [_arc(0.5, 0.33, 0.14, 0.15, 1, -3, 20) + _arc(0.5, 0.67, 0.17, 0.18, -1, 3, 22)],
    9: [_arc(0.5, 0.34, 0.16, 0.16, 0, -4, 22) + [[0.65, 0.5], [0.61, 0.68], [0.56, 0.88]]],
}


def strokes(digit):
    """The strokes of a digit as the page's sheet holds them."""
    return [{"points": points, "color": [1, 1, 1]} for points in STROKES[digit]]


def _blurred(images):
    """Images (count, 784), each pixel with a third of its neighbours', of length 1."""
    images = np.asarray(images, np.float32).reshape(-1, 28, 28)
    for axis in (1, 2):
        for _ in range(2):
            images = images + (np.roll(images, 1, axis) + np.roll(images, -1, axis)) / 2
    images = images.reshape(len(images), -1)
    return images / np.linalg.norm(images, axis=1, keepdims=True)


@functools.cache
def _known():
    return _blurred(minidraw.mnist().train[:5000]), mnist_labels("train")[:5000]


def nearest(images):
    """The digit of each image (count, 784): what most of the five nearest training images are, all of them blurred."""
    known, labels = _known()
    near = labels[np.argsort(-_blurred(images) @ known.T, axis=1)[:, :5]]
    return np.array([np.bincount(row, minlength=10).argmax() for row in near])
