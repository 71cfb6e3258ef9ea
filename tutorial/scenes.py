"""Images for studies of one's own: two digits on a page, house numbers in colour, and any folder of pictures.

    python tutorial/scenes.py houses FILE.npy     house numbers, for `minidraw train --data FILE.npy --keep-grey`
    python tutorial/scenes.py houses FOLDER       the same, as a folder of pictures
    python tutorial/scenes.py pack FOLDER FILE.npy     any folder of pictures, as such a file

The first two follow figures 8 and 9 of the paper: two MNIST digits on 60 x 60 pixels; and in place of the street view
house numbers, which are photographs and a large download, numbers that are drawn here.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from PIL import Image, ImageOps

from minidraw.errors import BadInput, MinidrawError
from minidraw.files import write_atomically
from minidraw.images import Images, mnist

# Two digits on a page

PAGE, DIGIT = 60, 28  # pixels each way
COUNTS = 50_000, 2_000, 5_000  # pages for training, validation and test


def two_digits(seed=0, counts=COUNTS):
    """Images of 60 x 60 binary pixels: two digits of the bundled MNIST each, anywhere. 200 MB at the usual `counts`.

    The training, validation and test pages are made of the digits of their own split.
    """
    digits = mnist()
    splits = zip((digits.train, digits.validation, digits.test), counts, strict=True)
    pages = [pages_of(split, n, np.random.default_rng([seed, tag])) for tag, (split, n) in enumerate(splits)]
    return Images(*pages, A=PAGE, B=PAGE)


def pages_of(digits, count, rng):
    """`count` pages (count, 3600) of two out of `digits` (n, 784), uint8: pixels are added and clipped at 1."""
    pages = np.zeros((count, PAGE, PAGE), np.uint8)
    page, across = np.arange(count)[:, None, None], np.arange(DIGIT)
    for _ in range(2):
        chosen = digits[rng.integers(len(digits), size=count)].reshape(count, DIGIT, DIGIT)
        top, left = rng.integers(PAGE - DIGIT + 1, size=(2, count, 1))  # every place where a digit is whole
        pages[page, (top + across)[:, :, None], (left + across)[:, None, :]] += chosen
    return np.minimum(pages, 1, out=pages).reshape(count, PAGE * PAGE)


# House numbers in colour

SIDE = 32  # pixels each way
MARGIN = 1.5  # pixels around a number, at least
CONTRAST = 0.35  # of the luminances of figure and ground, at least
LUMINANCE = 0.299, 0.587, 0.114  # the weights of red, green and blue
FONTS = (  # of those that come with matplotlib
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)


def house_numbers(count, seed=0):
    """Numbers of one to three digits in colour: (count, 32, 32, 3), uint8. Of any count, the first are the same."""
    return np.stack([house_number(np.random.default_rng([seed, index])) for index in range(count)])


def house_number(rng):
    """One of them, (32, 32, 3): random number, font, size, angle, place, colours and light, and a little noise."""
    digits = rng.integers(1, 4)
    shape = shape_of(rng.integers(10 ** (digits - 1), 10**digits), FONTS[rng.integers(len(FONTS))], rng)
    ground, figure = colours(rng)
    y, x = np.linspace(-1, 1, SIDE)[:, None, None], np.linspace(-1, 1, SIDE)[:, None]
    slope_y, slope_x = rng.uniform(-0.15, 0.15, 2)
    image = ground + shape[..., None] * (figure - ground) + slope_y * y + slope_x * x
    image += 0.02 * rng.standard_normal(image.shape)
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8)


def shape_of(number, font, rng):
    """How much of each pixel `number` covers, (32, 32) in [0, 1]: a little turned, as large as fits, at most."""
    font = FontProperties(fname=Path(get_data_path()) / "fonts" / "ttf" / f"{font}.ttf")
    outline = Affine2D().rotate_deg(rng.uniform(-10, 10)).transform_path(TextPath((0, 0), str(number), prop=font))
    corners = np.concatenate(outline.to_polygons())
    low, high = corners.min(axis=0), corners.max(axis=0)
    room, size = SIDE - 2 * MARGIN, high - low
    scale = min(rng.uniform(14, 26) / size[1], *(room / size))
    middle = SIDE / 2 + rng.uniform(-0.5, 0.5, 2) * (room - scale * size)
    place = Affine2D().translate(*-(low + high) / 2).scale(scale).translate(*middle)
    renderer = RendererAgg(SIDE, SIDE, 72)
    pen = renderer.new_gc()
    pen.set_linewidth(0)
    renderer.draw_path(pen, outline, place, (0, 0, 0))
    return np.asarray(renderer.buffer_rgba())[..., 3] / 255


def colours(rng):
    """Two colours that can be told apart, of ground and figure, (3,) each."""
    while True:
        ground, figure = rng.random((2, 3))
        if abs((ground - figure) @ LUMINANCE) >= CONTRAST:
            return ground, figure


# A person's own pictures

SUFFIXES = ".png", ".jpg", ".jpeg"


def packed(folder, size):
    """The PNG and JPEG pictures in `folder`, their middle squares scaled to (count, size, size, 3), uint8.

    In a shuffled order: minidraw holds out the last tenth, and names often go by what a picture shows. What is
    transparent becomes white. Raises BadInput for a folder without pictures, and for a file that cannot be read.
    """
    if not Path(folder).is_dir():
        raise BadInput(f"{folder}: no such folder")
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise BadInput(f"{folder}: no pictures here that end in {', '.join(SUFFIXES)}")
    pictures = np.stack([square(path, size) for path in paths])
    return pictures[np.random.default_rng(0).permutation(len(pictures))]


def square(path, size):
    """The picture at `path`, (size, size, 3) uint8. Raises BadInput where it is none."""
    try:
        with Image.open(path) as picture:
            if picture.mode[0] in "IF":  # of 16 bits or more, which Pillow would clip and not scale
                raise BadInput(f"{path}: has more than 8 bits a colour: save it with 8")
            picture = ImageOps.exif_transpose(picture).convert("RGBA")  # as the camera was held
    except BadInput:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path}: not a picture that can be read ({error})") from None
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(ImageOps.fit(Image.alpha_composite(white, picture).convert("RGB"), (size, size)))


# Commands


def save_houses(args):
    """Write `args.count` house numbers to a new file, or as pictures into a new folder."""
    check_new(args.out)
    images = house_numbers(args.count, args.seed)
    if args.out.suffix.lower() == ".npy":
        write_atomically(args.out, lambda file: np.save(file, images))
    else:
        args.out.mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(args.out / f"{index:06}.png")
    print(f"{args.out}: {len(images)} house numbers")


def save_packed(args):
    """Write the pictures of a folder to a new file."""
    check_new(args.out)
    if args.out.suffix.lower() != ".npy":
        raise BadInput(f"{args.out}: the file to write must end in .npy")
    images = packed(args.folder, args.size)
    write_atomically(args.out, lambda file: np.save(file, images))
    print(f"{args.out}: {len(images)} pictures of {args.size} x {args.size} pixels")


def check_new(path):
    if path.exists():
        raise BadInput(f"{path} exists already: choose another name")


def whole(low, high):
    """A type for argparse: whole numbers from `low` to `high`."""

    def parse(text):
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def attempt(name, work, *arguments):
    """The exit status of `work(*arguments)`, the command `name`: whatever goes wrong takes one line."""
    try:
        work(*arguments)
        return 0
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    except MemoryError:
        status, message = 1, "not enough memory"
    except OSError as error:
        status, message = 1, f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
    except MinidrawError as error:
        status, message = 1, str(error)
    print(f"{name}: {message}", file=sys.stderr)
    return status


def main(argv=None):
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    houses = commands.add_parser("houses", help="draw house numbers in colour, 32 x 32 pixels")
    houses.add_argument("out", type=Path, metavar="FILE.npy|FOLDER", help="a new file, or a new folder of PNG pictures")
    houses.add_argument("--count", type=whole(1, 10**6), default=20_000, metavar="N", help="how many (default: 20000)")
    houses.add_argument("--seed", type=whole(0, 2**63), default=0, metavar="N", help="which ones (default: 0)")
    houses.set_defaults(run=save_houses)
    pack = commands.add_parser("pack", help="make a folder of PNG or JPEG pictures one file of square colour images")
    pack.add_argument("folder", type=Path, metavar="FOLDER", help="where the pictures are")
    pack.add_argument("out", type=Path, metavar="FILE.npy", help="the file to write")
    pack.add_argument("--size", type=whole(2, 1024), default=SIDE, metavar="N", help="pixels each way (default: 32)")
    pack.set_defaults(run=save_packed)
    args = parser.parse_args(argv)
    return attempt("scenes.py", args.run, args)


if __name__ == "__main__":
    sys.exit(main())
