"""The attention: a grid of Gaussian filters, to read through and to write through.

Images are (batch, channels * B * A), row by row, channels one after another: B is the height and A the width in
pixels. One set of filters serves every channel. Pixels and filters count from 0 here; the paper counts both from 1,
and the formulas are shifted to match, so that a window with g~ = 0 sits in the middle of the image. Chapters 10, 11.
"""

import functools
from typing import NamedTuple

import numpy as np

from minidraw.autodiff import primitive
from minidraw.backend import array_module, fuse


def window(p, *, N, A, B):
    """Where a window lies: centre g (batch, 2) as (x, y), sigma2, delta, gamma (batch,); pixels counted from 0.

    `p` (batch, 5) is the vector of DRAW (21). DRAW (22) to (24), with g = (A - 1)/2 + (A + 1)/2 g~ so that g~ = 0 is
    the middle of the image. Chapter 10.
    """
    xp = array_module(p)
    grid = _grid(xp, p.real.dtype, N, A, B)
    g = grid.middle + grid.reach * p[:, :2]  # (10.1)
    sigma2, delta, gamma = xp.exp(p[:, 2:]).T
    return g, sigma2, (max(A, B) - 1) / (N - 1) * delta, gamma  # (10.2)


class _Grid(NamedTuple):
    """What does not depend on the window; x comes before y."""

    middle: np.ndarray  # (A - 1)/2, (B - 1)/2: (2,)
    reach: np.ndarray  # (A + 1)/2, (B + 1)/2: (2,)
    offset: np.ndarray  # i - (N - 1)/2, of filter i from the centre in units of delta: (N,)
    a: np.ndarray  # the pixels of the longer side: (max(A, B),)
    origin: float  # the middle of these: moments are taken about it, so that squares stay small
    powers: np.ndarray  # (a - origin)^0, ^1, ^2: (max(A, B), 3)


@functools.cache
def _grid(xp, dtype, N, A, B):
    """The _Grid, made once and not to be written to: on a GPU each of its arrays would be an upload."""
    a, origin, sizes = np.arange(max(A, B)), (max(A, B) - 1) / 2, np.array([A, B])
    powers = np.stack([a**0, a - origin, (a - origin) ** 2], axis=1)
    offset = np.arange(N) - (N - 1) / 2
    constants = [xp.asarray(c, dtype) for c in ((sizes - 1) / 2, (sizes + 1) / 2, offset, a, powers)]
    for constant in constants if xp is np else ():
        constant.flags.writeable = False
    middle, reach, offset, a, powers = constants
    return _Grid(middle, reach, offset, a, origin, powers)


@primitive
def filterbank(p, *, N, A, B):
    """The filters of a window: F_x (batch, N, A), F_y (batch, N, B), gamma (batch,).

    `p` (batch, 5) holds g~_x, g~_y, log sigma^2, log delta~, log gamma, DRAW (21). N is
    the number of filters each way, at least 2. DRAW (19) to (26), chapter 10:

        g_x = (A - 1)/2 + (A + 1)/2 g~_x                     (10.1)
        delta = (max(A, B) - 1)/(N - 1) delta~               (10.2)
        mu_i = g_x + (i - (N - 1)/2) delta                   (10.3)
        F_x[i, a] ~ exp(-(a - mu_i)^2 / (2 sigma^2))         (10.4)

    and every row of F_x sums to 1, as a softmax over the pixels: finite even for a
    window far outside the image. F_y likewise, from g~_y and B.

    This is the fast form of `plain_filterbank`: both directions at once (where the
    image is not square, the shorter one has zeros where there are no pixels), and the
    means under F of 1, a and a^2 by one product with `powers`.
    """
    xp = array_module(p)
    grid = _grid(xp, p.real.dtype, N, A, B)
    g, sigma2, delta, gamma = window(p, N=N, A=A, B=B)
    sigma2, delta = sigma2[:, None, None], delta[:, None, None]

    mu = g[:, :, None] + grid.offset * delta  # (batch, 2, N): x and y side by side, as in all arrays below (10.3)
    nearest = _nearest(mu.real, 2 * grid.middle[:, None])
    F = _bell(mu[..., None], nearest[..., None], sigma2[..., None], grid.a)  # (batch, 2, N, pixels)
    absent = np.s_[:, 0 if A < B else 1, :, min(A, B) :]  # where the shorter side has no pixels
    F[absent] = 0
    mean = _moments(F, grid.powers)  # of 1, a and a^2, but for the factor of (10.4)
    F /= mean[..., :1]
    mean /= mean[..., :1]

    def backward(dF_x, dF_y, dgamma):
        FdF = xp.empty_like(F)
        xp.multiply(F[:, 0, :, :A], dF_x, out=FdF[:, 0, :, :A])
        xp.multiply(F[:, 1, :, :B], dF_y, out=FdF[:, 1, :, :B])
        FdF[absent] = 0
        cov = _moments(FdF, grid.powers)
        cov -= cov[..., :1] * mean  # (10.6): of dF with 1, a and a^2
        cov /= sigma2[..., None]
        dmu, half = cov[..., 1], cov[..., 2] / 2  # (10.9)
        dp = xp.empty_like(p)
        dp[:, :2] = dmu.sum(axis=2) * grid.reach  # (10.11)
        dp[:, 2] = (half - (mu - grid.origin) * dmu).sum(axis=(1, 2))  # (10.10)
        dp[:, 3] = (dmu * grid.offset * delta).sum(axis=(1, 2))  # (10.12)
        dp[:, 4] = dgamma * gamma  # (10.13)
        return dp

    return (F[:, 0, :, :A], F[:, 1, :, :B], gamma), backward


@primitive
def plain_filterbank(p, *, N, A, B):
    """`filterbank` as chapter 10 derives it: direction by direction, mean by mean."""
    xp = array_module(p)
    g, sigma2, delta, gamma = window(p, N=N, A=A, B=B)
    sigma2, delta, offset = sigma2[:, None], delta[:, None], _grid(xp, p.real.dtype, N, A, B).offset
    sides = []
    for k, size in enumerate((A, B)):
        a = _grid(xp, p.real.dtype, N, A, B).a[:size]
        mu = g[:, k : k + 1] + offset * delta  # (batch, N) (10.3)
        F = _bell(mu[..., None], _nearest(mu.real, size - 1)[..., None], sigma2[..., None], a)  # (10.5)
        sides.append((a, mu, F / F.sum(axis=2, keepdims=True)))  # (10.4)

    def backward(dF_x, dF_y, dgamma):
        dp = xp.zeros_like(p)
        for k, dF in enumerate((dF_x, dF_y)):
            a, mu, F = sides[k]

            def cov(w, F=F, dF=dF):  # (10.6), of every filter: (batch, N)
                return (F * dF * w).sum(axis=2) - (F * dF).sum(axis=2) * (F * w).sum(axis=2)

            dmu = cov(a) / sigma2  # (10.9)
            dp[:, k] = (len(a) + 1) / 2 * dmu.sum(axis=1)  # (10.11)
            dp[:, 2] += (cov(a**2) / (2 * sigma2) - mu * dmu).sum(axis=1)  # (10.10)
            dp[:, 3] += (dmu * offset * delta).sum(axis=1)  # (10.12)
        dp[:, 4] = dgamma * gamma  # (10.13)
        return dp

    return (sides[0][2], sides[1][2], gamma), backward


@fuse
def _nearest(mu, last):
    """The pixel of 0 to `last` that is nearest to mu, (10.5); of the shape of mu."""
    xp = array_module(mu)
    return xp.minimum(xp.maximum(xp.rint(mu), 0), last)


@fuse
def _bell(mu, nearest, sigma2, a):
    """A Gaussian at the pixels a, 1 at the nearest, (10.5); arguments broadcast."""
    with np.errstate(over="ignore"):  # where there are no pixels, on the shorter side of an image
        return array_module(mu).exp(((nearest - mu) ** 2 - (a - mu) ** 2) / (2 * sigma2))


def _moments(F, powers):
    """The sums over the pixels of F (..., pixels) times each column of `powers` (pixels, 3): (..., 3)."""
    return (F.reshape(-1, len(powers)) @ powers).reshape(*F.shape[:-1], 3)


def _T(matrices):
    """Every matrix of a stack, transposed."""
    return matrices.swapaxes(-1, -2)


@primitive
def read(x, *inputs):
    """The glimpse gamma [F_y x F_x^T, F_y x_hat F_x^T]: (batch, 2 * channels * N * N).

    read(x, x_hat, F_x, F_y, gamma): the image x, which is data, and the error image
    x_hat, both (batch, channels * B * A); F_x (batch, N, A), F_y (batch, N, B), gamma
    (batch,). A glimpse has rows j (y) and columns i (x), like the image. For a network
    that only looks and has no x_hat, read(x, F_x, F_y, gamma) is gamma F_y x F_x^T
    alone. DRAW (27), (11.1), chapter 11.
    """
    *x_hat, F_x, F_y, gamma = inputs
    xp, (batch, _, A), B = array_module(x), F_x.shape, F_y.shape[2]
    images = [image.reshape(batch, -1, B, A) for image in (x, *x_hat)]
    narrow = xp.stack([F_y[:, None] @ image for image in images], axis=1)  # (batch, images, channels, N, A)
    rows = narrow.reshape(batch, -1, A)  # of all images and channels: F_x serves them all
    patch = rows @ _T(F_x)
    scale = gamma[:, None, None]

    def backward(dr):
        dr = dr.reshape(patch.shape)
        dpatch = scale * dr  # (11.5)
        dnarrow = (dpatch @ F_x).reshape(narrow.shape).swapaxes(0, 1)  # (images, batch, channels, N, A)
        dx_hat = [(_T(F_y)[:, None] @ dnarrow_hat).reshape(x.shape) for dnarrow_hat in dnarrow[1:]]  # (11.6)
        dF_x = _T(dpatch) @ rows  # (11.7)
        dF_y = sum(dnarrow[k] @ _T(image) for k, image in enumerate(images)).sum(axis=1)  # (11.8)
        dgamma = (dr * patch).sum(axis=(1, 2))  # (11.5)
        return None, *dx_hat, dF_x, dF_y, dgamma

    return (scale * patch).reshape(batch, -1), backward


@primitive
def write(w, F_x, F_y, gamma):
    """The stroke 1/gamma F_y^T w F_x of every channel: (batch, channels * B * A).

    The patch w is (batch, channels * N * N); F_x (batch, N, A), F_y (batch, N, B) and
    gamma (batch,). DRAW (29), (11.2), chapter 11.
    """
    (batch, N, A), B = F_x.shape, F_y.shape[2]
    scale = gamma[:, None, None]
    patch = w.reshape(batch, -1, N) / scale  # the rows of every channel
    narrow = (patch @ F_x).reshape(batch, -1, N, A)
    stroke = _T(F_y)[:, None] @ narrow

    def backward(dstroke):
        dstroke = dstroke.reshape(batch, -1, B, A)
        dnarrow = F_y[:, None] @ dstroke
        drows = dnarrow.reshape(batch, -1, A)
        dpatch = drows @ _T(F_x)  # (11.9)
        dF_x = _T(patch) @ drows  # (11.10)
        dF_y = (narrow @ _T(dstroke)).sum(axis=1)  # (11.10)
        dgamma = -(dpatch * patch).sum(axis=(1, 2)) / gamma  # (11.9)
        return (dpatch / scale).reshape(w.shape), dF_x, dF_y, dgamma  # (11.9)

    return stroke.reshape(batch, -1), backward
