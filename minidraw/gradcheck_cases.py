"""The cases: every op, and the whole model, with the inputs at which their gradients are checked. Chapter 1."""

from functools import partial
from typing import NamedTuple

import numpy as np

from minidraw import gradcheck, ops
from minidraw.autodiff import backward
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.ops import elementary
from minidraw.ops.affine import plain_affine
from minidraw.ops.attention import plain_filterbank

SEED = 0


class Case(NamedTuple):
    """A bare op (`op.on_arrays`), its settings, float64 inputs, and their names (None for data)."""

    label: str
    op: callable
    inputs: list
    names: list
    settings: dict

    def run(self, seed=SEED):
        """A gradcheck.Row for every input with a gradient; `seed` gives the cotangents."""
        rng = np.random.default_rng(seed)
        return gradcheck.check(partial(self.op, **self.settings), self.inputs, self.names, rng, self.label)


def op_cases():
    """A list of Cases: every op in `minidraw.ops`, at random inputs and at the awkward ones."""
    rng = np.random.default_rng(SEED)
    normal = rng.standard_normal
    cases = []

    def case(op, names, *inputs, label=None, **settings):
        cases.append(Case(label or op.__name__, op.on_arrays, [np.asarray(i) for i in inputs], names.split(), settings))

    def data_case(op, names, *inputs, label=None):
        names = [None if name == "data" else name for name in names.split()]
        cases.append(Case(label or op.__name__, op.on_arrays, list(inputs), names, {}))

    for op in (elementary.add, elementary.subtract, elementary.multiply):
        case(op, "a b", normal((3, 4)), normal((3, 4)))
        case(op, "a b", normal((2, 1, 4)), normal((3, 1)), label=f"{op.__name__}, broadcast")
    case(elementary.divide, "a b", normal((3, 4)), 1 + rng.random((3, 4)))
    case(elementary.divide, "a b", normal(4), 1 + rng.random((3, 1)), label="divide, broadcast")
    for op in (elementary.exp, elementary.tanh, elementary.sigmoid):
        case(op, "a", normal((3, 4)))
    case(elementary.log, "a", 0.5 + rng.random((3, 4)))
    case(elementary.matmul, "a b", normal((2, 3, 4)), normal((2, 4, 5)))
    case(elementary.sum, "a", normal((3, 4)))
    case(elementary.sum, "a", normal((2, 3, 4)), axis=(0, 2), label="sum, axis=(0, 2)")
    case(elementary.reshape, "a", normal((3, 4)), shape=(2, 6))
    case(elementary.concat, "a b c", normal((3, 2)), normal((3, 4)), normal((3, 1)))

    case(elementary.split, "a", normal((2, 3, 6)), widths=(2, 3, 1))
    case(elementary.split_rows, "a", normal((5, 2)), first=2)

    for op in (ops.affine, plain_affine):
        case(op, "x W b", normal((5, 3)), normal((3, 4)), normal(4))
        label = f"{op.__name__}, a bias for every row"
        case(op, "x W b", normal((5, 3)), normal((3, 4)), normal((5, 4)), label=label)
    case(ops.lstm, "a cell", normal((3, 8)), normal((3, 2)))
    case(ops.lstm, "a cell", 4 * normal((3, 8)), normal((3, 2)), label="lstm, gates nearly shut")
    data_case(ops.sample, "mu log_sigma data", normal((3, 2)), normal((3, 2)), normal((3, 2)))
    case(ops.kl, "mu log_sigma", normal((3, 2)), normal((3, 2)))
    x = rng.integers(0, 2, (3, 6)).astype(float)
    data_case(ops.error_image, "data c", x, normal((3, 6)))
    data_case(ops.bernoulli, "logits data", normal((3, 6)), x)
    data_case(ops.bernoulli, "logits data", normal((3, 6)), rng.random((3, 6)), label="bernoulli, grey")
    data_case(ops.bernoulli, "logits data", 30 * normal((3, 6)), x, label="bernoulli, large logits")
    labels = np.array([3, 0, 3])
    data_case(ops.cross_entropy, "logits data", normal((3, 4)), labels)
    data_case(ops.cross_entropy, "logits data", 30 * normal((3, 4)), labels, label="cross_entropy, large logits")
    for label, N, A, B, p in [
        ("square", 3, 7, 7, 0.5 * normal((4, 5))),
        ("wide", 2, 8, 5, 0.5 * normal((4, 5))),
        ("tall", 4, 5, 9, 0.5 * normal((4, 5))),
        ("outside", 3, 6, 7, 0.2 * normal((4, 5)) + [2, -2, 1, 0, 0]),
    ]:
        for op in (ops.filterbank, plain_filterbank):
            case(op, "p", p, N=N, A=A, B=B, label=f"{op.__name__}, {label}")
    for channels in (1, 3):
        F_x, F_y = rng.random((2, 3, 7)), rng.random((2, 3, 5))
        gamma = 0.5 + rng.random(2)
        label = f"{channels} channel" + "s" * (channels > 1)
        x, x_hat, w = normal((2, channels * 35)), normal((2, channels * 35)), normal((2, channels * 9))
        data_case(ops.read, "data x_hat F_x F_y gamma", x, x_hat, F_x, F_y, gamma, label=f"read, {label}")
        data_case(ops.read, "data F_x F_y gamma", x, F_x, F_y, gamma, label=f"read, one image, {label}")
        case(ops.write, "w F_x F_y gamma", w, F_x, F_y, gamma, label=f"write, {label}")
    mask = np.triu(np.ones((4, 4)), 1)
    for label, b in (("masked_affine", normal(4)), ("masked_affine, a bias for every row", normal((5, 4)))):
        data_case(ops.masked_affine, "x W b data", normal((5, 4)), normal((4, 4)), b, mask, label=label)
    return cases


def model_cases():
    """A list of Cases for the whole of DRAW: the bound in nats as a function of every parameter."""
    small = {"T": 3, "z_size": 2, "enc_size": 3, "dec_size": 2}
    cases = []
    for label, config in {
        "attention": Config(read_N=2, write_N=3, A=6, B=5, **small),
        "no attention": Config(read_N=None, write_N=None, A=3, B=2, **small),
        "read only": Config(read_N=3, write_N=None, A=4, B=5, **small),
        "write only": Config(read_N=None, write_N=2, A=3, B=2, **small),
        "colour, learned start": Config(read_N=2, write_N=2, A=3, B=4, channels=3, learned_start=True, **small),
    }.items():
        rng = np.random.default_rng(SEED)
        parameters = {name: 0.7 * rng.standard_normal(shape) for name, shape in config.shapes.items()}
        x = rng.integers(0, 2, (2, config.pixels)).astype(float)
        noise = rng.standard_normal((config.T, 2, config.z_size))
        op = partial(_bound, config, x, noise)
        cases.append(Case(f"DRAW, {label}", op, list(parameters.values()), list(parameters), {}))
    return cases


def _bound(config, x, noise, *parameters):
    """The whole model as one op of its parameters."""
    model = Draw(config, dict(zip(config.shapes, parameters, strict=True)))
    L_x, L_z = model.nats(x, noise)
    loss = (L_x + L_z).mean()
    return loss.value, lambda dy: tuple(dy * g for g in backward(loss, model.parameters.values()))
