"""The attention: a grid of Gaussian filters, to read through and to write through.

Images are (batch, planes * B * A), row by row, planes one after another: B is the height
and A the width in pixels. One set of filters serves every plane. Pixels and filters count
from 0 here; the paper counts both from 1, and the formulas are shifted to match, so that a
window with g~ = 0 sits in the middle of the image. Chapters 10 and 11.
"""

import functools

import numpy as np

from minidraw.autodiff import primitive
from minidraw.backend import array_module, fuse


def window(p, *, N, A, B):
    """Where a window lies: centre g (batch, 2) as (x, y), sigma2, delta, gamma (batch,); pixels counted from 0.

    DRAW (21) to (24), with g = (A - 1)/2 + (A + 1)/2 g~ so that g~ = 0 is the middle of the image. Chapter 10.
    """
    xp = array_module(p)
    middle, reach, *_ = _grid(xp, p.real.dtype, N, A, B)
    g = middle + reach * p[:, :2]  # (10.1)
    sigma2, delta, gamma = xp.exp(p[:, 2:]).T
    return g, sigma2, (max(A, B) - 1) / (N - 1) * delta, gamma  # (10.2)


@functools.cache
def _grid(xp, dtype, N, A, B):
    """What does not depend on the window, made once: on a GPU each would be an upload."""
    sizes = xp.asarray([A, B], dtype=dtype)
    offset = xp.arange(N, dtype=dtype) - (N - 1) / 2  # of filter i from the centre, in units of delta
    a = xp.arange(max(A, B), dtype=dtype)
    origin = (max(A, B) - 1) / 2  # moments are taken about it, so that squares stay small
    powers = xp.stack([a**0, a - origin, (a - origin) ** 2], axis=1)
    return (sizes - 1) / 2, (sizes + 1) / 2, offset, a, origin, powers


@primitive
def filterbank(p, *, N, A, B):
    """The filters of a window: F_x (batch, N, A), F_y (batch, N, B), gamma (batch,).

    `p` (batch, 5) holds g~_x, g~_y, log sigma^2, log delta~, log gamma, DRAW (21). N is the
    number of filters each way, at least 2. DRAW (19), (20), (22) to (26), chapter 10:

        g_x = (A - 1)/2 + (A + 1)/2 g~_x        delta = (max(A, B) - 1)/(N - 1) delta~           (10.1), (10.2)
        mu_i = g_x + (i - (N - 1)/2) delta      F_x[i, a] ~ exp(-(a - mu_i)^2 / (2 sigma^2))     (10.3), (10.4)

    and every row of F_x sums to 1, as a softmax over the pixels: finite even for a window
    far outside the image. F_y likewise, from g~_y and B.
    """
    xp = array_module(p)
    middle, reach, offset, a, origin, powers = _grid(xp, p.real.dtype, N, A, B)
    g, sigma2, delta, gamma = window(p, N=N, A=A, B=B)
    sigma2, delta = sigma2[:, None, None], delta[:, None, None]

    mu = g[:, :, None] + offset * delta  # (batch, 2, N): x and y side by side, as in all arrays below (10.3)
    nearest = _nearest(mu.real, 2 * middle[:, None])
    F = _bell(mu[..., None], nearest[..., None], sigma2[..., None], a)  # (batch, 2, N, pixels)
    absent = np.s_[:, 0 if A < B else 1, :, min(A, B) :]  # where the shorter side has no pixels
    F[absent] = 0

    # A row of F is a distribution over the pixels, exp(-a^2 / (2 sigma^2) + a mu / sigma^2) but for a factor. So its
    # gradient with respect to what multiplies a is the covariance of dF with a under that distribution, and with
    # respect to what multiplies a^2 the covariance with a^2, (10.8): nothing else of dF is needed.
    mean = _moments(F, powers)
    F /= mean[..., :1]
    mean /= mean[..., :1]  # of 1, a and a^2

    def backward(dF_x, dF_y, dgamma):
        FdF = xp.empty_like(F)
        xp.multiply(F[:, 0, :, :A], dF_x, out=FdF[:, 0, :, :A])
        xp.multiply(F[:, 1, :, :B], dF_y, out=FdF[:, 1, :, :B])
        FdF[absent] = 0
        covariance = _moments(FdF, powers)
        covariance -= covariance[..., :1] * mean  # (10.6), of dF with a, and with a^2
        covariance /= sigma2[..., None]
        dmu, half = covariance[..., 1], covariance[..., 2] / 2  # (10.9)
        dp = xp.empty_like(p)
        dp[:, :2] = dmu.sum(axis=2) * reach  # (10.11)
        dp[:, 2] = (half - (mu - origin) * dmu).sum(axis=(1, 2))  # (10.10)
        dp[:, 3] = (dmu * offset * delta).sum(axis=(1, 2))  # (10.12)
        dp[:, 4] = dgamma * gamma  # (10.13)
        return dp

    return (F[:, 0, :, :A], F[:, 1, :, :B], gamma), backward


@fuse
def _nearest(mu, last):
    """The pixel nearest to mu, of 0 to `last`, (10.5)."""
    xp = array_module(mu)
    return xp.minimum(xp.maximum(xp.rint(mu), 0), last)


@fuse
def _bell(mu, nearest, sigma2, a):
    """A Gaussian at the pixels a, 1 at the nearest of them, (10.4)."""
    y = a - mu
    y *= y
    y -= (nearest - mu) ** 2
    y /= -2 * sigma2
    with np.errstate(over="ignore"):  # where there are no pixels, on the shorter side of an image
        return array_module(y).exp(y, y)


def _moments(F, powers):
    """The sums over the pixels of F (..., pixels) times each column of `powers` (pixels, 3): (..., 3)."""
    return (F.reshape(-1, len(powers)) @ powers).reshape(*F.shape[:-1], 3)


def _T(matrices):
    """Every matrix of a stack, transposed."""
    return matrices.swapaxes(-1, -2)


@primitive
def read(x, x_hat, F_x, F_y, gamma):
    """The glimpse gamma [F_y x F_x^T, F_y x_hat F_x^T]: (batch, 2 * planes * N * N). DRAW (27), (11.1), chapter 11.

    The image x, which is data, and the error image x_hat are (batch, planes * B * A); F_x (batch, N, A),
    F_y (batch, N, B), gamma (batch,). A glimpse has rows j (y) and columns i (x), like the image.
    """
    xp, (batch, _, A), B = array_module(x_hat), F_x.shape, F_y.shape[2]
    image, image_hat = x.reshape(batch, -1, B, A), x_hat.reshape(batch, -1, B, A)
    planes = image.shape[1]
    narrow = xp.concatenate([F_y[:, None] @ image, F_y[:, None] @ image_hat], axis=1)  # (batch, 2 * planes, N, A)
    rows = narrow.reshape(batch, -1, A)  # of all planes: F_x serves them all
    patch = rows @ _T(F_x)
    scale = gamma[:, None, None]

    def backward(dr):
        dr = dr.reshape(patch.shape)
        dpatch = scale * dr  # (11.5)
        dboth = (dpatch @ F_x).reshape(narrow.shape)
        dnarrow, dnarrow_hat = dboth[:, :planes], dboth[:, planes:]
        dx_hat = _T(F_y)[:, None] @ dnarrow_hat  # (11.6)
        dF_x = _T(dpatch) @ rows  # (11.7)
        dF_y = (dnarrow @ _T(image) + dnarrow_hat @ _T(image_hat)).sum(axis=1)  # (11.8)
        dgamma = (dr * patch).sum(axis=(1, 2))  # (11.5)
        return None, dx_hat.reshape(x_hat.shape), dF_x, dF_y, dgamma

    return (scale * patch).reshape(batch, -1), backward


@primitive
def write(w, F_x, F_y, gamma):
    """The stroke 1/gamma F_y^T w F_x of every plane: (batch, planes * B * A). DRAW (29), (11.2), chapter 11.

    The patch w is (batch, planes * N * N); F_x (batch, N, A), F_y (batch, N, B), gamma (batch,).
    """
    (batch, N, A), B = F_x.shape, F_y.shape[2]
    scale = gamma[:, None, None]
    patch = w.reshape(batch, -1, N) / scale  # the rows of every plane
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
