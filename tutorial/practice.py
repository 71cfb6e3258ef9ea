"""The last step of DRAW on the tape, every value by its name: what the long exercise of practice.md is judged by.

Ops of the library where they leave each value in sight, elementary ops inside the LSTM and the filterbank.
"""

from math import isqrt

import numpy as np

from minidraw.autodiff import Tensor
from minidraw.ops import affine, bernoulli, error_image, kl, read, sample, write
from minidraw.ops.elementary import concat, exp, mean, reshape, sigmoid, split, sum, tanh


class Values(dict):
    """Tensors by name. One that is given becomes a leaf when it is first used, so that creation order is the page's."""

    def __init__(self, given):
        self.given = given

    def __missing__(self, name):
        self[name] = Tensor(self.given[name])
        return self[name]


def last_step(given):
    """The loss of the step t = T, a Tensor, and the Tensors that it was computed from, by name.

    `given` maps names to arrays: the image `x` (n, B, A), the `noise` (n, Z), the states before the step, and the
    parameters, all as in practice.md.
    """
    v, x, n = Values(given), given["x"], len(given["x"])
    flat, N = x.reshape(n, -1), isqrt(given["W_patch"].shape[1])
    ones = np.ones(n)

    c_prev = reshape(v["c_prev"], shape=flat.shape)
    v["x_hat"] = reshape(error_image(flat, c_prev), shape=x.shape)  # (3)
    v["window_r"] = affine(v["h_dec_prev"], v["W_read"], v["b_read"])  # (21)
    _filters(v, "r", x.shape, N)
    x_hat = reshape(v["x_hat"], shape=flat.shape)
    patches = split(read(flat, x_hat, v["F_x_r"], v["F_y_r"], ones), widths=[N * N] * 2)
    v["P"], v["P_hat"] = (reshape(patch, shape=(n, N, N)) for patch in patches)
    v["r"] = v["gamma_r"] * concat(*(reshape(v[name], shape=(n, N * N)) for name in ("P", "P_hat")))  # (27)

    v["in_enc"] = concat(v["r"], v["h_dec_prev"], v["h_enc_prev"])
    v["a_enc"] = affine(v["in_enc"], v["W_enc"], v["b_enc"])
    _lstm(v, "enc")  # (5)
    v["mu"] = affine(v["h_enc"], v["W_mu"], v["b_mu"])  # (1)
    v["log_sigma"] = affine(v["h_enc"], v["W_sigma"], v["b_sigma"])  # (2)
    v["z"] = sample(v["mu"], v["log_sigma"], given["noise"])  # (6)
    v["in_dec"] = concat(v["z"], v["h_dec_prev"])
    v["a_dec"] = affine(v["in_dec"], v["W_dec"], v["b_dec"])
    _lstm(v, "dec")  # (7)

    v["w"] = reshape(affine(v["h_dec"], v["W_patch"], v["b_patch"]), shape=(n, N, N))  # (28)
    v["window_w"] = affine(v["h_dec"], v["W_write"], v["b_write"])  # (21)
    _filters(v, "w", x.shape, N)
    v["Q"] = v["w"] / reshape(v["gamma_w"], shape=(n, 1, 1))
    stroke = write(reshape(v["Q"], shape=(n, N * N)), v["F_x_w"], v["F_y_w"], ones)  # (29)
    v["stroke"] = reshape(stroke, shape=x.shape)
    v["c"] = v["c_prev"] + v["stroke"]  # (8)
    v["L_x"] = bernoulli(reshape(v["c"], shape=flat.shape), flat)  # (9)
    v["L_z"] = kl(v["mu"], v["log_sigma"])  # (10)
    return mean(v["L_x"] + v["L_z"]), v


def _filters(v, side, shape, N):
    """From `window_r`, or `window_w`, to its filters; the names end with the side."""
    n, B, A = shape
    g_x, g_y, log_sigma2, log_delta, log_gamma = split(v[f"window_{side}"], widths=[1] * 5)
    v[f"sigma2_{side}"], v[f"gamma_{side}"] = exp(log_sigma2), exp(log_gamma)
    v[f"delta_{side}"] = (max(A, B) - 1) / (N - 1) * exp(log_delta)  # (10.2)
    for axis, g, size in (("x", g_x, A), ("y", g_y, B)):
        centre = (size - 1) / 2 + (size + 1) / 2 * g  # (10.1)
        mu = v[f"mu_{axis}_{side}"] = centre + (np.arange(N) - (N - 1) / 2) * v[f"delta_{side}"]  # (10.3)
        away = np.arange(size) - reshape(mu, shape=(n, N, 1))
        bell = exp(-away * away / (2 * reshape(v[f"sigma2_{side}"], shape=(n, 1, 1))))
        v[f"F_{axis}_{side}"] = bell / reshape(sum(bell, axis=2), shape=(n, N, 1))  # (10.4)


def _lstm(v, name):
    """From `a_enc` and `cell_enc_prev` to `h_enc`; the decoder likewise."""
    H = v.given[f"cell_{name}_prev"].shape[1]
    a_i, a_f, a_o, a_g = split(v[f"a_{name}"], widths=[H] * 4)
    i, f, g = v[f"i_{name}"], v[f"f_{name}"], v[f"g_{name}"] = sigmoid(a_i), sigmoid(a_f), tanh(a_g)  # (5.2)
    v[f"cell_{name}"] = f * v[f"cell_{name}_prev"] + i * g  # (5.3)
    v[f"o_{name}"] = sigmoid(a_o)
    v[f"h_{name}"] = v[f"o_{name}"] * tanh(v[f"cell_{name}"])  # (5.4)
