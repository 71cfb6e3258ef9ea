"""A model as one HTML file: to draw for it, to move its window, to see it dream. Chapters 0, 10, 11 and 13.

The page holds its parameters as float16, some images, and three scripts: `engine.js` computes, `pad.js` makes an image
of what a hand draws, `view.js` shows. It fetches nothing, and a browser opens it from the disk.
"""

import base64
import json
from dataclasses import asdict
from importlib.resources import files

import numpy as np

from minidraw.draw import Draw, check_images
from minidraw.errors import BadInput
from minidraw.evaluation import evaluate

ASSETS = files("minidraw") / "page_assets"
IMAGES = 12  # that the page has room for


def rounded(model):
    """The Draw whose parameters are those of `model` rounded to float16, in their own dtype.

    Raises BadInput for one that float16 cannot hold.
    """
    parameters = {}
    for name, tensor in model.parameters.items():
        with np.errstate(over="ignore"):
            half = tensor.value.astype(np.float16)
        if not np.isfinite(half).all():
            raise BadInput(f"parameter {name} holds a number that a page, with its float16, cannot: 65504 at most")
        parameters[name] = half.astype(tensor.value.dtype)
    return Draw(model.config, parameters)


def cost_of_rounding(model, images):
    """What float16 adds to the bound of `images` (count, pixels), in nats an image; 0.0 for a model that is float16."""
    half = rounded(model)
    if all(np.array_equal(half.arrays()[name], array) for name, array in model.arrays().items()):
        return 0.0
    return evaluate(half, images).bound - evaluate(model, images).bound


def chosen(images, labels=None):
    """The indices of the images that a page shows, IMAGES at most.

    The first ones; with `labels`, the first of every digit, so that image 7 is a 7, and then the first that are left.
    """
    indices = list(range(len(images)))
    if labels is not None:
        firsts = [int(np.flatnonzero(labels == digit)[0]) for digit in np.unique(labels)]
        indices = firsts + [k for k in indices if k not in firsts]
    return indices[:IMAGES]


def data(model, images, labels=None, binary=True):
    """What the page holds, a dict for JSON: sizes, parameters (float16) and images (uint8) as base64.

    `images` (count, pixels) in [0, 1]; `labels` (count,) name them, if they are digits; `binary` is whether the model
    is used to zeros and ones, so that a drawing is made of these, too. Raises BadInput for other images.
    """
    check_images(images, model.config)
    indices = chosen(images, labels)
    parameters = b"".join(array.astype("<f2").tobytes() for array in rounded(model).arrays().values())
    pixels = np.round(255 * images[indices].astype(np.float64)).astype(np.uint8)
    return {
        "config": asdict(model.config),
        "shapes": {name: list(shape) for name, shape in model.config.shapes.items()},
        "parameters": base64.b64encode(parameters).decode(),
        "images": base64.b64encode(pixels.tobytes()).decode(),
        "labels": None if labels is None else [int(label) for label in labels[indices]],
        "binary": bool(binary),
    }


def page(model, images, labels=None, binary=True):
    """The page of a model, a text in HTML; the arguments are those of `data`."""
    text = json.dumps(data(model, images, labels, binary), separators=(",", ":")).replace("<", "\\u003c")
    html = (ASSETS / "template.html").read_text(encoding="utf-8")
    for name in ("style.css", "engine.js", "pad.js", "view.js"):
        html = html.replace(f"{{{{ {name} }}}}", (ASSETS / name).read_text(encoding="utf-8"))
    return html.replace("{{ data }}", text)
