"""Each hand-derived op again, composed of elementary ops whose gradients the tape puts together."""

import numpy as np

from minidraw import ops
from minidraw.autodiff import primitive
from minidraw.ops import elementary as e


@primitive
def columns(a, *, start, stop):
    """a[..., start:stop], with the gradient that slicing has."""

    def backward(dy):
        da = np.zeros_like(a)
        da[..., start:stop] = dy
        return da

    return a[..., start:stop], backward


@primitive
def transpose(a):
    """Every matrix of a stack transposed."""
    return a.swapaxes(-1, -2), lambda dy: dy.swapaxes(-1, -2)


def affine(x, W, b):
    return x @ W + b


def masked_affine(x, W, b, mask):
    return x @ (mask * W) + b


def lstm(a, cell):
    H = cell.shape[1]
    i, f, o = (e.sigmoid(columns(a, start=k * H, stop=(k + 1) * H)) for k in range(3))
    g = e.tanh(columns(a, start=3 * H, stop=4 * H))
    cell_new = f * cell + i * g
    return o * e.tanh(cell_new), cell_new


def sample(mu, log_sigma, noise):
    return mu + e.exp(log_sigma) * noise


def kl(mu, log_sigma):
    return 0.5 * e.sum(mu * mu + e.exp(2 * log_sigma) - 2 * log_sigma - 1, axis=1)


def bernoulli(logits, x):
    """-x log s - (1 - x) log(1 - s), with s = sigmoid(logits): right as long as s is neither 0 nor 1."""
    return -e.sum(x * e.log(e.sigmoid(logits)) + (1 - x) * e.log(e.sigmoid(-logits)), axis=1)


def cross_entropy(logits, labels):
    """log sum e^a - a_label as it stands: right as long as no exponential overflows."""
    onehot = np.eye(logits.shape[1])[labels]
    return e.log(e.sum(e.exp(logits), axis=1)) - e.sum(onehot * logits, axis=1)


def filterbank(p, *, N, A, B):
    """As the paper writes it, pixels and filters counted from 1: DRAW (19) to (26)."""
    g_x, g_y, log_sigma2, log_delta, log_gamma = (columns(p, start=k, stop=k + 1) for k in range(5))
    batch = p.shape[0]
    delta = (max(A, B) - 1) / (N - 1) * e.exp(log_delta)
    sigma2 = e.reshape(e.exp(log_sigma2), shape=(batch, 1, 1))

    def filters(g_tilde, size):
        g = (size + 1) / 2 * (g_tilde + 1)
        mu = e.reshape(g + (np.arange(1, N + 1) - N / 2 - 0.5) * delta, shape=(batch, N, 1))
        distance = np.arange(1, size + 1) - mu
        exponent = -1 * distance * distance / (2 * sigma2)
        weights = e.exp(exponent - exponent.value.max(axis=2, keepdims=True))  # the shift cancels, also in the gradient
        return weights / e.reshape(e.sum(weights, axis=2), shape=(batch, N, 1))

    return filters(g_x, A), filters(g_y, B), e.reshape(e.exp(log_gamma), shape=(batch,))


def error_image(x, c):
    return x - e.sigmoid(c)


def read(*inputs):
    """Channel by channel."""
    *all_images, F_x, F_y, gamma = inputs
    (batch, N, A), B = F_x.shape, F_y.shape[2]
    glimpses = []
    for images in all_images:
        for k in range(images.shape[1] // (A * B)):
            image = e.reshape(columns(images, start=k * A * B, stop=(k + 1) * A * B), shape=(batch, B, A))
            patch = F_y @ image @ transpose(F_x)
            glimpses.append(e.reshape(e.reshape(gamma, shape=(batch, 1, 1)) * patch, shape=(batch, N * N)))
    return e.concat(*glimpses)


def write(w, F_x, F_y, gamma):
    """Channel by channel."""
    (batch, N, A), B = F_x.shape, F_y.shape[2]
    strokes = []
    for k in range(w.shape[1] // (N * N)):
        patch = e.reshape(columns(w, start=k * N * N, stop=(k + 1) * N * N), shape=(batch, N, N))
        stroke = transpose(F_y) @ patch @ F_x / e.reshape(gamma, shape=(batch, 1, 1))
        strokes.append(e.reshape(stroke, shape=(batch, B * A)))
    return e.concat(*strokes)


TWINS = {name: (globals()[name], getattr(ops, name)) for name in ops.__all__}
