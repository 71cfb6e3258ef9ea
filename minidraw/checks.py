"""The cases: every op, and the whole model, with the inputs at which their gradients are checked. Chapter 1."""

from functools import partial
from typing import NamedTuple

import numpy as np

from minidraw import gradcheck, ops
from minidraw.autodiff import backward
from minidraw.draw import Config, Draw
from minidraw.ops import elementwise

SEED = 0


class Case(NamedTuple):
    """A bare op (`op.maths`), its settings, float64 inputs, and their names (None for data)."""

    label: str
    maths: callable
    inputs: list
    names: list
    settings: dict

    def run(self, rng):
        """A gradcheck.Row for every input with a gradient."""
        return gradcheck.check(partial(self.maths, **self.settings), self.inputs, self.names, rng, self.label)


def op_cases():
    """A list of Cases: every op in `minidraw.ops`, at random inputs and at the awkward ones."""
    rng = np.random.default_rng(SEED)
    normal = rng.standard_normal
    cases = []

    def case(op, names, *inputs, label=None, **settings):
        cases.append(Case(label or op.__name__, op.maths, [np.asarray(i) for i in inputs], names.split(), settings))

    def data_case(op, names, *inputs, label=None):
        names = [None if name == "data" else name for name in names.split()]
        cases.append(Case(label or op.__name__, op.maths, list(inputs), names, {}))

    for op in (elementwise.add, elementwise.subtract, elementwise.multiply):
        case(op, "a b", normal((3, 4)), normal((3, 4)))
        case(op, "a b", normal((2, 1, 4)), normal((3, 1)), label=f"{op.__name__}, broadcast")
    case(elementwise.divide, "a b", normal((3, 4)), 1 + rng.random((3, 4)))
    case(elementwise.divide, "a b", normal(4), 1 + rng.random((3, 1)), label="divide, broadcast")
    for op in (elementwise.exp, elementwise.tanh, elementwise.sigmoid):
        case(op, "a", normal((3, 4)))
    case(elementwise.log, "a", 0.5 + rng.random((3, 4)))
    case(elementwise.matmul, "a b", normal((2, 3, 4)), normal((2, 4, 5)))
    case(elementwise.sum, "a", normal((3, 4)))
    case(elementwise.sum, "a", normal((2, 3, 4)), axis=(0, 2), label="sum, axis=(0, 2)")
    case(elementwise.reshape, "a", normal((3, 4)), shape=(2, 6))
    case(elementwise.concat, "a b c", normal((3, 2)), normal((3, 4)), normal((3, 1)))

    case(elementwise.split, "a", normal((2, 3, 6)), widths=(2, 3, 1))
    case(elementwise.split_rows, "a", normal((5, 2)), first=2)

    case(ops.affine, "x W b", normal((5, 3)), normal((3, 4)), normal(4))
    case(ops.affine, "x W b", normal((5, 3)), normal((3, 4)), normal((5, 4)), label="affine, a bias for every row")
    case(ops.affine, "x W b", normal((5, 2)), normal((3, 4)), normal(4), label="affine, x without its last column")
    case(ops.lstm, "a cell", normal((3, 8)), normal((3, 2)))
    case(ops.lstm, "a cell", 4 * normal((3, 8)), normal((3, 2)), label="lstm, gates nearly shut")
    data_case(ops.sample, "mu log_sigma data", normal((3, 2)), normal((3, 2)), normal((3, 2)))
    case(ops.kl, "mu log_sigma", normal((3, 2)), normal((3, 2)))
    x = rng.integers(0, 2, (3, 6)).astype(float)
    data_case(ops.error_image, "data c", x, normal((3, 6)))
    data_case(ops.bernoulli, "logits data", normal((3, 6)), x)
    data_case(ops.bernoulli, "logits data", normal((3, 6)), rng.random((3, 6)), label="bernoulli, grey")
    data_case(ops.bernoulli, "logits data", 30 * normal((3, 6)), x, label="bernoulli, large logits")
    for label, N, A, B, p in [
        ("square", 3, 7, 7, 0.5 * normal((4, 5))),
        ("wide", 2, 8, 5, 0.5 * normal((4, 5))),
        ("tall", 4, 5, 9, 0.5 * normal((4, 5))),
        ("outside", 3, 6, 7, 0.2 * normal((4, 5)) + [2, -2, 1, 0, 0]),
    ]:
        case(ops.filterbank, "p", p, N=N, A=A, B=B, label=f"filterbank, {label}")
    for planes in (1, 3):
        F_x, F_y = rng.random((2, 3, 7)), rng.random((2, 3, 5))
        gamma = 0.5 + rng.random(2)
        label = f"{planes} plane" + "s" * (planes > 1)
        x, x_hat, w = normal((2, planes * 35)), normal((2, planes * 35)), normal((2, planes * 9))
        data_case(ops.read, "data x_hat F_x F_y gamma", x, x_hat, F_x, F_y, gamma, label=f"read, {label}")
        case(ops.write, "w F_x F_y gamma", w, F_x, F_y, gamma, label=f"write, {label}")
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
        "colour, learned start": Config(read_N=2, write_N=2, A=3, B=4, planes=3, learned_start=True, **small),
    }.items():
        rng = np.random.default_rng(SEED)
        parameters = {name: 0.7 * rng.standard_normal(shape) for name, shape in config.shapes.items()}
        x = rng.integers(0, 2, (2, config.pixels)).astype(float)
        noise = rng.standard_normal((config.T, 2, config.z_size))
        maths = partial(_bound, config, x, noise)
        cases.append(Case(f"DRAW, {label}", maths, list(parameters.values()), list(parameters), {}))
    return cases


def _bound(config, x, noise, *parameters):
    """The whole model as one op of its parameters."""
    model = Draw(config, dict(zip(config.shapes, parameters, strict=True)))
    L_x, L_z = model.nats(x, noise)
    loss = (L_x + L_z).mean()
    return loss.value, lambda dy: tuple(dy * g for g in backward(loss, model.parameters.values()))


def run(cases):
    """A gradcheck.Row for every input of every case, as they are found; the cotangents come from one fixed seed."""
    rng = np.random.default_rng(SEED)
    for case in cases:
        yield from case.run(rng)
