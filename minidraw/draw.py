"""DRAW: the configuration, the parameters, and the T-step loop, a line for each equation of the paper.

Gregor, Danihelka, Graves, Rezende, Wierstra: DRAW: A Recurrent Neural Network For Image
Generation, ICML 2015, arXiv 1502.04623. Whole equation numbers are the paper's, (9.9) and the like
those of the tutorial. Chapters 8, 9 and 11.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minidraw.autodiff import Tensor, no_grad
from minidraw.backend import array_module, to_host
from minidraw.errors import BadInput
from minidraw.ops import affine, bernoulli, error_image, filterbank, kl, lstm, read, sample, write
from minidraw.ops.elementwise import concat, sigmoid, split, split_rows


@dataclass(frozen=True)
class Config:
    """The sizes of a model. Raises BadInput for sizes that cannot be."""

    T: int = 10  # glimpses
    read_N: int | None = 5  # filters each way when reading; None reads the whole image, eq. (17)
    write_N: int | None = 5  # filters each way when writing; None writes the whole canvas, eq. (18)
    z_size: int = 10
    enc_size: int = 256  # units of the encoder LSTM
    dec_size: int = 256  # units of the decoder LSTM
    A: int = 28  # width of an image in pixels
    B: int = 28  # height of an image in pixels
    planes: int = 1  # 1 for grey, 3 for colour
    learned_start: bool = False  # c_0 and both LSTMs' initial states: learned, or zero

    def __post_init__(self):
        for name in ("T", "z_size", "enc_size", "dec_size", "A", "B"):
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise BadInput(f"{name} is {size!r}: it must be a whole number from 1 up")
        for name in ("read_N", "write_N"):
            N = getattr(self, name)
            if N is not None and (not isinstance(N, int) or N < 2):
                raise BadInput(f"{name} is {N!r}: a grid needs at least 2 filters each way, or None for no attention")
        if self.planes not in (1, 3):
            raise BadInput(f"planes is {self.planes!r}: it must be 1, for grey, or 3, for colour")

    @property
    def size(self):
        """Height, width and planes of an image."""
        return self.B, self.A, self.planes

    @property
    def pixels(self):
        """Numbers in an image: planes * B * A."""
        return self.planes * self.B * self.A

    @property
    def shapes(self):
        """The name and shape of every parameter, in order: the blog's names, two more where the start is learned."""
        enc, dec, z = self.enc_size, self.dec_size, self.z_size
        glimpse = 2 * (self.pixels if self.read_N is None else self.planes * self.read_N**2)
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
            maps |= {"writeW": (dec, self.planes * self.write_N**2), "write": (dec, 5)}
        shapes = {}
        for name, (fan_in, fan_out) in maps.items():
            shapes |= {f"{name}/w": (fan_in, fan_out), f"{name}/b": (fan_out,)}
        if self.learned_start:
            starts = {"c": self.pixels, "h_enc": enc, "cell_enc": enc, "h_dec": dec, "cell_dec": dec}
            shapes |= {f"start/{name}": (size,) for name, size in starts.items()}
        return shapes

    def as_images(self, flat):
        """(..., planes * B * A) as pictures: (..., B, A), or (..., B, A, 3) for three planes."""
        images = flat.reshape(*flat.shape[:-1], self.planes, self.B, self.A)
        return images[..., 0, :, :] if self.planes == 1 else np.moveaxis(images, -3, -1)

    @property
    def number_of_parameters(self):
        return sum(int(np.prod(shape)) for shape in self.shapes.values())


class Glimpse(NamedTuple):
    """What one step t left behind, as Tensors; generation has no encoder, and leaves its fields None."""

    canvas: Tensor  # c_t (batch, pixels)
    write_window: Tensor | None  # (batch, 5), the vector of eq. (21); None without attention
    z: Tensor  # (batch, Z)
    mu: Tensor | None = None  # (batch, Z)
    log_sigma: Tensor | None = None  # (batch, Z)
    read_window: Tensor | None = None  # (batch, 5)


class Drawing(NamedTuple):
    """A drawing as it grew, NumPy arrays to look at; fields that do not apply are None."""

    means: np.ndarray  # sigmoid(c_t) for every t: (T, count, B, A), or (T, count, B, A, 3) in colour
    write_windows: np.ndarray | None  # (T, count, 5)
    read_windows: np.ndarray | None  # (T, count, 5)


class Draw:
    """The model: a Config and its parameters, Tensors by name."""

    def __init__(self, config, parameters):
        """`parameters` maps every name of `config.shapes` to an array; all on one device, of one dtype."""
        self.config = config
        self.parameters = {name: Tensor(parameters[name]) for name in config.shapes}

    @classmethod
    def initial(cls, config, seed=0, dtype="float32", xp=np):
        """A model to be trained: weights N(0, 1/fan_in), biases and learned starts zero.

        Drawn by NumPy from `seed`, so every array library `xp` starts from the same numbers.
        """
        rng = np.random.default_rng(seed)
        parameters = {}
        for name, shape in config.shapes.items():
            value = np.zeros(shape) if len(shape) == 1 else rng.standard_normal(shape) / shape[0] ** 0.5
            parameters[name] = xp.asarray(value.astype(dtype))
        return cls(config, parameters)

    def arrays(self):
        """The parameters as arrays, by name."""
        return {name: tensor.value for name, tensor in self.parameters.items()}

    def _affine(self, name, x):
        return affine(x, self.parameters[f"{name}/w"], self.parameters[f"{name}/b"])

    def _maps(self, *names):
        """A function x -> (the affine map of each name), all of them one product: for inputs that have several maps."""
        if len(names) == 1:  # whose weight need not be copied
            return lambda x: (self._affine(*names, x),)
        W, b = (concat(*(self.parameters[f"{name}/{kind}"] for name in names)) for kind in "wb")
        widths = [self.config.shapes[f"{name}/b"][0] for name in names]
        return lambda x: split(affine(x, W, b), widths=widths)

    def _start(self, batch, *names):
        """The initial value of each state of `names`, (batch, size): learned, or zero.

        A zero h has no columns at all: it only enters affine maps, where they would be a product with zeros.
        """
        config, like = self.config, self.parameters["mu/w"].value
        xp = array_module(like)
        sizes = {"c": config.pixels, "cell_enc": config.enc_size, "cell_dec": config.dec_size}
        states = []
        for name in names:
            if config.learned_start:
                states.append(xp.zeros((batch, 1), like.dtype) + self.parameters[f"start/{name}"])
            else:
                states.append(Tensor(xp.zeros((batch, sizes.get(name, 0)), like.dtype)))
        return states

    def _eye(self, x):
        """A function (c, window, h_dec, h_enc) -> the affine map that (5) begins with; the window is None for (17)."""
        config = self.config
        if config.read_N is None:
            return self._whole_image(x)

        def eye(c, window, h_dec, h_enc):
            x_hat = error_image(x, c)  # (3)
            r = read(x, x_hat, *filterbank(window, N=config.read_N, A=config.A, B=config.B))  # (4), (27)
            return self._affine("encoder", concat(r, h_dec, h_enc))

        return eye

    def _whole_image(self, x):
        """The eye without attention, where r = [x, x_hat], (17). A third of all products does not depend on t, (9.9):

            x W_x + x_hat W_x_hat = x (W_x + W_x_hat) - sigmoid(c) W_x_hat

        with W_x and W_x_hat the first rows of the encoder's weight.
        """
        W, b = self.parameters["encoder/w"], self.parameters["encoder/b"]
        W_x, W_rest = split_rows(W, first=self.config.pixels)
        W_x_hat, _ = split_rows(W_rest, first=self.config.pixels)
        constant = affine(x, W_x + W_x_hat, b)

        def eye(c, window, h_dec, h_enc):
            minus_mean = error_image(0, c)
            return affine(concat(minus_mean, h_dec, h_enc), W_rest, constant)

        return eye

    def _pen(self, *others):
        """A function h_dec -> (what (8) adds to the canvas, the window it is written through, the maps of `others`).

        By (28, 29), or by (18) and no window; all maps of h_dec are one product.
        """
        config = self.config
        maps = self._maps(*(["write"] if config.write_N is None else ["writeW", "write"]), *others)

        def pen(h_dec):
            if config.write_N is None:
                stroke, *rest = maps(h_dec)  # (18)
                return stroke, None, rest
            w, window, *rest = maps(h_dec)  # (28), (21)
            return write(w, *filterbank(window, N=config.write_N, A=config.A, B=config.B)), window, rest  # (29)

        return pen

    def _decode(self, z, c, h_dec, cell_dec, pen):
        """One step of the drawing half: the new (c, h_dec, cell_dec), the write window, and what else the pen says."""
        h_dec, cell_dec = lstm(self._affine("decoder", concat(z, h_dec)), cell_dec)  # (7)
        stroke, window, rest = pen(h_dec)
        return c + stroke, h_dec, cell_dec, window, rest  # (8)

    def infer(self, x, noise):
        """Look at `x` and draw it: a Glimpse for every t = 1..T, the training half and the drawing half together.

        x (batch, pixels) in [0, 1]; noise (T, batch, Z) from N(0, 1), fresh for every t. Raises ValueError for
        other shapes.
        """
        shapes = (len(x), self.config.pixels), (self.config.T, len(x), self.config.z_size)
        if (x.shape, noise.shape) != shapes:
            raise ValueError(f"x and noise have shapes {x.shape} and {noise.shape}, and should have {shapes}")
        look = [] if self.config.read_N is None else ["read"]
        eye, posterior, pen = self._eye(x), self._maps("mu", "sigma"), self._pen(*look)
        c, h_enc, cell_enc, h_dec, cell_dec = self._start(len(x), "c", "h_enc", "cell_enc", "h_dec", "cell_dec")
        windows = [self._affine(name, h_dec) for name in look]  # (21): where the first glimpse goes
        for noise_t in noise:
            (read_window,) = windows or [None]
            h_enc, cell_enc = lstm(eye(c, read_window, h_dec, h_enc), cell_enc)  # (3), (4), (5)
            mu, log_sigma = posterior(h_enc)  # (1), (2)
            z = sample(mu, log_sigma, noise_t)  # (6)
            c, h_dec, cell_dec, write_window, windows = self._decode(z, c, h_dec, cell_dec, pen)  # (7), (8)
            yield Glimpse(c, write_window, z, mu, log_sigma, read_window)

    def generate(self, z):
        """Draw from the prior: a Glimpse for every t, from z (T, batch, Z) drawn from N(0, 1). Eq. (13) to (16).

        The encoder plays no part. The means of the image are sigmoid(canvas) of the last one.
        """
        pen = self._pen()
        c, h_dec, cell_dec = self._start(z.shape[1], "c", "h_dec", "cell_dec")
        for z_t in z:
            c, h_dec, cell_dec, write_window, _ = self._decode(z_t, c, h_dec, cell_dec, pen)
            yield Glimpse(c, write_window, z_t)

    def nats(self, x, noise):
        """L_x and L_z of every image, both (batch,), in nats: (9) to (11). Their sum bounds -log p(x) on average."""
        posteriors = []
        for glimpse in self.infer(x, noise):
            posteriors.append((glimpse.mu, glimpse.log_sigma))
        mu, log_sigma = (concat(*of_all_t) for of_all_t in zip(*posteriors, strict=True))  # (batch, T * Z)
        return bernoulli(glimpse.canvas, x), kl(mu, log_sigma)  # (9); (10) and the sum (9.8) in one

    def sample(self, count, seed=0):
        """`count` new pictures from the prior, as a Drawing; `seed` gives their z, drawn by NumPy."""
        z = np.random.default_rng(seed).standard_normal((self.config.T, count, self.config.z_size), dtype=np.float32)
        return self._drawing(self.generate(self._asarray(z)))

    def reconstruct(self, x, seed=0):
        """The images x (count, pixels), NumPy, seen and drawn again, as a Drawing; `seed` gives the noise."""
        shape = (self.config.T, len(x), self.config.z_size)
        noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        return self._drawing(self.infer(self._asarray(x), self._asarray(noise)))

    def _asarray(self, array):
        """`array` in the library and dtype of the parameters."""
        like = self.parameters["mu/w"].value
        return array_module(like).asarray(array, like.dtype)

    def _drawing(self, glimpses):
        with no_grad():
            glimpses = [(sigmoid(g.canvas), g.write_window, g.read_window) for g in glimpses]
        means, write_windows, read_windows = (
            None if column[0] is None else np.stack([to_host(tensor.value) for tensor in column])
            for column in zip(*glimpses, strict=True)
        )
        return Drawing(self.config.as_images(means), write_windows, read_windows)
