"""DRAW, a line for each equation of the paper. Chapters 8, 9 and 11.

Gregor, Danihelka, Graves, Rezende, Wierstra: DRAW: A Recurrent Neural Network For Image Generation, ICML 2015,
arXiv 1502.04623. Whole equation numbers are the paper's, (9.9) and the like those of the tutorial.
"""

from typing import NamedTuple

import numpy as np

from minidraw.autodiff import Tensor, no_grad
from minidraw.backend import array_module, to_host
from minidraw.errors import BadInput
from minidraw.ops import affine, bernoulli, error_image, filterbank, kl, lstm, read, sample, write
from minidraw.ops.elementary import concat, sigmoid, split_rows


class Glimpse(NamedTuple):
    """What one step t left behind, as Tensors; generation has no encoder, and leaves its fields None."""

    c: Tensor  # the canvas c_t (batch, pixels), logits
    z: Tensor  # (batch, Z)
    write_window: Tensor | None  # (batch, 5), the vector of (21); None without attention
    mu: Tensor | None = None  # (batch, Z)
    log_sigma: Tensor | None = None  # (batch, Z)
    read_window: Tensor | None = None  # (batch, 5)


class Drawing(NamedTuple):
    """A drawing as it grew, NumPy arrays to look at; fields that do not apply are None."""

    means: np.ndarray  # sigmoid(c_t) for every t: (T, count, B, A), or (T, count, B, A, 3) in colour
    write_windows: np.ndarray | None  # (T, count, 5)
    read_windows: np.ndarray | None  # (T, count, 5)


def check_images(x, config):
    """Raise BadInput unless x is a NumPy array (count, pixels) of values in [0, 1], at least one image."""
    x = np.asarray(x)
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != config.pixels:
        raise BadInput(f"images of shape {x.shape}, and they should be (count, {config.pixels})")
    if x.dtype.kind not in "buif":
        raise BadInput(f"images of type {x.dtype}: they must be numbers in [0, 1]")
    if not (x.min() >= 0 and x.max() <= 1):  # so that a NaN is refused, too
        raise BadInput(f"images with values from {x.min()} to {x.max()}: they must lie in [0, 1]")


class Draw:
    """The model: a Config and its parameters, Tensors by name."""

    def __init__(self, config, parameters):
        """`parameters` maps every name of `config.shapes` to an array of that shape, all on one device.

        Raises BadInput for a name that is missing and a shape that is wrong.
        """
        for name, shape in config.shapes.items():
            found = parameters[name].shape if name in parameters else "missing"
            if found != shape:
                raise BadInput(f"parameter {name} is {found}, and the configuration wants {shape}")
        self.config = config
        self.parameters = {name: Tensor(parameters[name]) for name in config.shapes}
        arrays = self.arrays().values()
        self.xp = array_module(next(iter(arrays)))
        self.dtype = np.result_type(*(array.dtype for array in arrays))
        self.trained_by = lambda: None  # a weak reference to the Trainer that trains it

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

    def asarray(self, array):
        """`array` in the library and dtype of the parameters."""
        return self.xp.asarray(array, self.dtype)

    # The paper's loop

    def infer(self, x, noise):
        """Look at `x` and draw it: a Glimpse for every t = 1..T, T the length of noise.

        x (batch, pixels) in [0, 1]; noise (T, batch, Z) from N(0, 1), fresh for every t.
        Raises BadInput for other shapes.
        """
        self.check(x, noise)
        c, h_enc, cell_enc, h_dec, cell_dec = self._start(len(x), "c", "h_enc", "cell_enc", "h_dec", "cell_dec")
        W, b = self._encoder(x)
        for noise_t in noise:
            x_hat = error_image(x, c)  # (3)
            r, read_window = self._read(x, x_hat, h_dec)  # (4)
            h_enc, cell_enc = lstm(affine(concat(r, h_dec, h_enc), W, b), cell_enc)  # (5)
            mu, log_sigma = self._affine("mu", h_enc), self._affine("sigma", h_enc)  # (1), (2)
            z = sample(mu, log_sigma, noise_t)  # (6)
            h_dec, cell_dec = lstm(self._affine("decoder", z, h_dec), cell_dec)  # (7)
            stroke, write_window = self._write(h_dec)
            c = c + stroke  # (8)
            yield Glimpse(c, z, write_window, mu, log_sigma, read_window)

    def generate(self, z):
        """Draw from the prior: a Glimpse for every t, from z (T, batch, Z) ~ N(0, 1), (13).

        The lower half of the loop: the encoder plays no part. The means of the image, (16),
        are sigmoid(c) of the last one. Raises BadInput for another shape.
        """
        if z.ndim != 3 or 0 in z.shape or z.shape[2] != self.config.z_size:
            raise BadInput(f"z is {z.shape}, and it should be (T, batch, {self.config.z_size})")
        c, h_dec, cell_dec = self._start(z.shape[1], "c", "h_dec", "cell_dec")
        for z_t in z:
            h_dec, cell_dec = lstm(self._affine("decoder", z_t, h_dec), cell_dec)  # (14)
            stroke, write_window = self._write(h_dec)
            c = c + stroke  # (15)
            yield Glimpse(c, z_t, write_window)

    def nats(self, x, noise):
        """L_x and L_z of every image, both (batch,), in nats.

        On average over the noise, their sum is never below -log p(x), (12).
        """
        L_z = 0
        for glimpse in self.infer(x, noise):
            L_z = L_z + kl(glimpse.mu, glimpse.log_sigma)  # (10), (11)
        return bernoulli(glimpse.c, x), L_z  # (9)

    # Its parts

    def _affine(self, name, *inputs):
        """The map L of that name, of its inputs side by side."""
        x = inputs[0] if len(inputs) == 1 else concat(*inputs)
        return affine(x, self.parameters[f"{name}/w"], self.parameters[f"{name}/b"])

    def _start(self, batch, *names):
        """The states of these names before the first step, (batch, size) each: learned, or zero."""
        states = [self.xp.zeros((batch, self.config.states[name]), self.dtype) for name in names]
        if self.config.learned_start:
            states = [zeros + self.parameters[f"start/{name}"] for name, zeros in zip(names, states, strict=True)]
        return states

    def _encoder(self, x):
        """W and b of the encoder's map in (5).

        Without attention r is [x, x_hat], (17), and x W_x does not depend on t: made
        once, it becomes part of a bias for every row, (9.9), and W lacks the rows W_x.
        """
        W, b = self.parameters["encoder/w"], self.parameters["encoder/b"]
        if self.config.read_N is not None:
            return W, b
        W_x, W = split_rows(W, first=self.config.pixels)
        return W, affine(x, W_x, b)

    def _read(self, x, x_hat, h_dec):
        """(27): the glimpse r, and the window it is read through.

        Without attention, (17), but for x, which `_encoder` has dealt with; and no window.
        """
        config = self.config
        if config.read_N is None:
            return x_hat, None
        window = self._affine("read", h_dec)  # (21)
        return read(x, x_hat, *filterbank(window, N=config.read_N, A=config.A, B=config.B)), window  # (27)

    def _write(self, h_dec):
        """(29): what is added to the canvas, and the window it is written through. Or (18), and no window."""
        config = self.config
        if config.write_N is None:
            return self._affine("write", h_dec), None  # (18)
        w, window = self._affine("writeW", h_dec), self._affine("write", h_dec)  # (28), (21)
        return write(w, *filterbank(window, N=config.write_N, A=config.A, B=config.B)), window  # (29)

    def check(self, x, noise):
        """Raise BadInput unless x is (batch, pixels) and noise (T, batch, Z), arrays on the model's device."""
        pixels, Z = self.config.pixels, self.config.z_size
        on_device = all(hasattr(a, "ndim") and array_module(a) is self.xp for a in (x, noise))
        if not on_device:
            raise BadInput(f"x and noise must be arrays of {self.xp.__name__}, like the model: use model.asarray")
        if x.ndim != 2 or len(x) == 0 or x.shape[1] != pixels or noise.ndim != 3 or noise.shape[1:] != (len(x), Z):
            wanted = f"(batch, {pixels}) and (T, batch, {Z})"
            raise BadInput(f"x is {x.shape} and noise {noise.shape}, and they should be {wanted}")
        if len(noise) == 0:
            raise BadInput("noise has no glimpses: it should be (T, batch, Z) with T from 1 up")

    # Drawings to look at

    def sample(self, count, seed=0):
        """`count` new pictures from the prior, as a Drawing; `seed` gives their z, drawn by NumPy.

        Raises BadInput for a count below 1.
        """
        if count < 1:
            raise BadInput(f"count is {count}: at least one picture has to be drawn")
        z = np.random.default_rng(seed).standard_normal((self.config.T, count, self.config.z_size), dtype=np.float32)
        return self._drawing(self.generate(self.asarray(z)))

    def reconstruct(self, x, seed=0):
        """The images x (count, pixels), NumPy, seen and drawn again, as a Drawing; `seed` gives the noise.

        Raises BadInput for another shape, and for values outside [0, 1].
        """
        check_images(x, self.config)
        shape = (self.config.T, len(x), self.config.z_size)
        noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        return self._drawing(self.infer(self.asarray(x), self.asarray(noise)))

    def _drawing(self, glimpses):
        with no_grad():
            glimpses = [(sigmoid(g.c), g.write_window, g.read_window) for g in glimpses]
        means, write_windows, read_windows = (
            None if column[0] is None else np.stack([to_host(tensor.value) for tensor in column])
            for column in zip(*glimpses, strict=True)
        )
        return Drawing(self.config.as_images(means), write_windows, read_windows)
