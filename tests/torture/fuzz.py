"""Damaged files of every format that is read: one clear line, or a file that can be used; nothing else."""

import gzip
import io
import json
import random
from pathlib import Path

import numpy as np

from minidraw import checkpoint
from minidraw.errors import BadInput
from minidraw.files import read_idx
from minidraw.images import load_images


def seeds(images, run):
    """(name, bytes, function that reads a path) of every format."""
    array = np.load(images)
    idx = b"\x00\x00\x08\x03" + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    packed, compressed = io.BytesIO(), io.BytesIO()
    np.savez(packed, images=array)
    np.savez_compressed(compressed, images=array)
    saved = (Path(run) / "checkpoint.npz").read_bytes()
    return [
        ("images.npy", Path(images).read_bytes(), load_images),
        ("images.npz", packed.getvalue(), load_images),
        ("packed.npz", compressed.getvalue(), load_images),
        ("images", idx, load_images),
        ("images.gz", gzip.compress(idx), read_idx),
        ("checkpoint.npz", saved, checkpoint.load),
        ("header.npz", saved, checkpoint.load),
    ]


def damaged(content, rng):
    """`content` with a few bytes changed, cut out, put in, repeated, or an end cut off."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, much = rng.randrange(len(content) + 1), rng.choice((1, 2, 4, 8, 50))
        match rng.randrange(6):
            case 0 if at < len(content):
                content[at] = rng.randrange(256)
            case 1 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 2:
                del content[at : at + much]
            case 3:
                content[at:at] = rng.randbytes(much)
            case 4:
                content[at : at + much] = rng.choice((b"\x00", b"\xff", b"9", b"(", b"\x7f")) * much
            case 5:
                del content[at:]
        if not content:
            break
    return bytes(content)


def with_other_header(saved, rng):
    """A checkpoint whose JSON header has one value replaced by something odd."""
    with np.load(io.BytesIO(saved)) as arrays:
        arrays = dict(arrays)
    header = json.loads(str(arrays["header"]))
    part = rng.choice(("config", "recipe", "about"))
    odd = (0, -1, 1.5, 10**7, 1e308, float("nan"), "x", None, [], {}, [[0.5, 1]], True, "a\nb", [[1, [2]]])
    key = rng.choice([*header[part], "new"])
    header[part] = rng.choice(odd) if rng.random() < 0.1 else header[part] | {key: rng.choice(odd)}
    arrays["header"] = np.array(json.dumps(header))
    if rng.random() < 0.2:
        arrays["step"] = np.array(rng.choice((float("inf"), float("nan"), -1, 2**62, "x", [1, 2])))
    if rng.random() < 0.05:
        arrays["header"] = np.array("[" * 100_000)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def fuzz(folder, images, run, count, seed=0):
    """`count` damaged files; reading one must give a result or a BadInput of one line."""
    rng, wrong = random.Random(seed), []
    known = seeds(images, run)
    for number in range(count):
        name, content, read = known[number % len(known)]
        path = Path(folder) / name
        path.write_bytes(with_other_header(content, rng) if name == "header.npz" else damaged(content, rng))
        try:
            read(path)
        except BadInput as error:
            if "\n" in str(error):
                wrong.append(f"{name}, file {number}: more than a line: {error}")
        except BaseException as error:
            wrong.append(f"{name}, file {number}: {type(error).__name__}: {error}")
            (Path(folder) / f"kept-{number}-{name}").write_bytes(path.read_bytes())
    return count, wrong
