"""The sizes of a model, and the names and shapes of its parameters. Chapters 8 to 11."""

from dataclasses import dataclass

import numpy as np

from minidraw.errors import BadInput

LARGEST = 10_000  # of every size: a file may ask for more than any memory holds


@dataclass(frozen=True)
class Config:
    """The sizes of a model. Raises BadInput for sizes that cannot be."""

    T: int = 10  # glimpses
    read_N: int | None = 5  # filters each way when reading; None reads the whole image, DRAW (17)
    write_N: int | None = 5  # filters each way when writing; None writes the whole canvas, DRAW (18)
    z_size: int = 10
    enc_size: int = 256  # units of the encoder LSTM
    dec_size: int = 256  # units of the decoder LSTM
    A: int = 28  # width of an image in pixels
    B: int = 28  # height of an image in pixels
    channels: int = 1  # 1 for grey, 3 for colour
    learned_start: bool = False  # c_0 and both LSTMs' initial states: learned, or zero

    def __post_init__(self):
        for name in ("T", "z_size", "enc_size", "dec_size", "A", "B"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST:
                raise BadInput(f"{name} is {size!r}: it must be a whole number from 1 to {LARGEST}")
        for name in ("read_N", "write_N"):
            N = getattr(self, name)
            if N is not None and (not isinstance(N, int) or not 2 <= N <= LARGEST):
                raise BadInput(f"{name} is {N!r}: a grid needs at least 2 filters each way, or None for no attention")
        if self.channels not in (1, 3):
            raise BadInput(f"channels is {self.channels!r}: it must be 1, for grey, or 3, for colour")

    @property
    def image_shape(self):
        """Height, width and channels of an image."""
        return self.B, self.A, self.channels

    @property
    def pixels(self):
        """Numbers in an image: channels * B * A."""
        return self.channels * self.B * self.A

    @property
    def states(self):
        """The size of everything that one step hands to the next."""
        enc, dec = self.enc_size, self.dec_size
        return {"c": self.pixels, "h_enc": enc, "cell_enc": enc, "h_dec": dec, "cell_dec": dec}

    @property
    def shapes(self):
        """The name and shape of every parameter, in order: the blog's names, and those of a learned start."""
        enc, dec, z = self.enc_size, self.dec_size, self.z_size
        glimpse = 2 * (self.pixels if self.read_N is None else self.channels * self.read_N**2)
        maps = {} if self.read_N is None else {"read": (dec, 5)}
        maps |= {
            "encoder": (glimpse + dec + enc, 4 * enc),
            "mu": (enc, z),
            "sigma": (enc, z),
            "decoder": (z + dec, 4 * dec),
        }
        if self.write_N is None:
            maps["write"] = (dec, self.pixels)
        else:
            maps |= {"writeW": (dec, self.channels * self.write_N**2), "write": (dec, 5)}
        shapes = {}
        for name, (fan_in, fan_out) in maps.items():
            shapes |= {f"{name}/w": (fan_in, fan_out), f"{name}/b": (fan_out,)}
        if self.learned_start:
            shapes |= {f"start/{name}": (size,) for name, size in self.states.items()}
        return shapes

    @property
    def number_of_parameters(self):
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def as_images(self, flat):
        """(..., channels * B * A) as pictures: (..., B, A), or (..., B, A, 3) in colour."""
        images = flat.reshape(*flat.shape[:-1], self.channels, self.B, self.A)
        return images[..., 0, :, :] if self.channels == 1 else np.moveaxis(images, -3, -1)
