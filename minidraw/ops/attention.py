"""The attention: a grid of Gaussian filters, to read through and to write through.

Images are (batch, planes * B * A), row by row, planes one after another: B is the height
and A the width in pixels. One set of filters serves every plane. Pixels and filters count
from 0 here; the paper counts both from 1, and the formulas are shifted to match, so that a
window with g~ = 0 sits in the middle of the image. Chapters 10 and 11.
"""

from minidraw.autodiff import primitive
from minidraw.backend import array_module


def window(p, *, N, A, B):
    """Where a window lies: centre g (batch, 2) as (x, y), sigma2, delta, gamma (batch,); pixels counted from 0.

    DRAW (21) to (24), with g = (A - 1)/2 + (A + 1)/2 g~ so that g~ = 0 is the middle of the image. Chapter 10.
    """
    xp = array_module(p)
    sizes = xp.asarray([A, B], dtype=p.real.dtype)
    g = (sizes - 1) / 2 + (sizes + 1) / 2 * p[:, :2]
    delta = (max(A, B) - 1) / (N - 1) * xp.exp(p[:, 3])
    return g, xp.exp(p[:, 2]), delta, xp.exp(p[:, 4])


@primitive
def filterbank(p, *, N, A, B):
    """The filters of a window: F_x (batch, N, A), F_y (batch, N, B), gamma (batch,).

    `p` (batch, 5) holds g~_x, g~_y, log sigma^2, log delta~, log gamma, DRAW (21). N is the
    number of filters each way, at least 2. DRAW (19), (20), (22) to (26), chapter 10:

        g_x = (A - 1)/2 + (A + 1)/2 g~_x        delta = (max(A, B) - 1)/(N - 1) delta~
        mu_i = g_x + (i - (N - 1)/2) delta      F_x[i, a] ~ exp(-(a - mu_i)^2 / (2 sigma^2))

    and every row of F_x sums to 1, as a softmax over the pixels: finite even for a window
    far outside the image. F_y likewise, from g~_y and B.
    """
    xp = array_module(p)
    sizes = xp.asarray([[A], [B]], dtype=p.real.dtype)  # x and y side by side: every array below is (batch, 2, ...)
    offset = xp.arange(N, dtype=p.real.dtype) - (N - 1) / 2  # of filter i from the centre, in units of delta
    pixels = xp.arange(max(A, B), dtype=p.real.dtype)
    g, sigma2, delta, gamma = window(p, N=N, A=A, B=B)
    sigma2, delta = sigma2[:, None, None], delta[:, None, None]

    mu = g[:, :, None] + offset * delta  # (batch, 2, N)
    nearest = xp.clip(xp.rint(mu.real), 0, sizes - 1) - mu  # from mu to the pixel with the largest exponent
    distance = pixels - mu[..., None]  # (batch, 2, N, pixels)
    exponent = distance * distance
    exponent -= (nearest * nearest)[..., None]
    exponent /= -2 * sigma2[..., None]
    if A != B:
        exponent[:, 0 if A < B else 1, :, min(A, B) :] = -xp.inf  # no pixels there, on the shorter side
    F = xp.exp(exponent)
    F /= F.sum(axis=3, keepdims=True)

    def backward(dF_x, dF_y, dgamma):
        dF = xp.zeros_like(F)
        dF[:, 0, :, :A], dF[:, 1, :, :B] = dF_x, dF_y
        dF *= F
        dexponent = dF - F * dF.sum(axis=3, keepdims=True)  # F (dF - sum F dF), row by row
        dexponent *= distance
        dmu = dexponent.sum(axis=3) / sigma2
        dexponent *= distance
        dp = xp.empty_like(p)
        dp[:, :2] = (dmu.sum(axis=2, keepdims=True) * (sizes + 1) / 2)[..., 0]
        dp[:, 2] = dexponent.sum(axis=(1, 2, 3)) / (2 * sigma2[:, 0, 0])
        dp[:, 3] = (dmu * offset * delta).sum(axis=(1, 2))
        dp[:, 4] = dgamma * gamma
        return dp

    return (F[:, 0, :, :A], F[:, 1, :, :B], gamma), backward


def _T(matrices):
    """Every matrix of a stack, transposed."""
    return matrices.swapaxes(-1, -2)


@primitive
def read(images, F_x, F_y, gamma):
    """The glimpse gamma F_y x F_x^T of every plane x: (batch, planes * N * N). DRAW (27), chapter 11.

    images (batch, planes * B * A), F_x (batch, N, A), F_y (batch, N, B), gamma (batch,).
    A glimpse has rows j (y) and columns i (x), like the image.
    """
    (batch, N, A), B = F_x.shape, F_y.shape[2]
    rows = images.reshape(batch, -1, A)  # of all the planes: one product filters them all along x
    narrow = (rows @ _T(F_x)).reshape(batch, -1, B, N)
    patch = F_y[:, None] @ narrow
    scale = gamma[:, None, None, None]

    def backward(dr):
        dr = dr.reshape(patch.shape)
        dpatch = scale * dr
        dnarrow = _T(F_y)[:, None] @ dpatch
        drows = dnarrow.reshape(batch, -1, N)
        dF_x = _T(drows) @ rows
        dF_y = (dpatch @ _T(narrow)).sum(axis=1)
        dgamma = (dr * patch).sum(axis=(1, 2, 3))
        return (drows @ F_x).reshape(images.shape), dF_x, dF_y, dgamma

    return (scale * patch).reshape(batch, -1), backward


@primitive
def write(w, F_x, F_y, gamma):
    """The stroke 1/gamma F_y^T w F_x of every plane: (batch, planes * B * A). DRAW (29), chapter 11.

    The patch w is (batch, planes * N * N); F_x (batch, N, A), F_y (batch, N, B), gamma (batch,).
    """
    (batch, N, A), B = F_x.shape, F_y.shape[2]
    scale = gamma[:, None, None, None]
    patch = w.reshape(batch, -1, N, N) / scale
    rows = (_T(F_y)[:, None] @ patch).reshape(batch, -1, N)

    def backward(dstroke):
        dstroke = dstroke.reshape(batch, -1, A)
        dF_x = _T(rows) @ dstroke
        drows = (dstroke @ _T(F_x)).reshape(batch, -1, B, N)
        dF_y = (patch @ _T(drows)).sum(axis=1)
        dpatch = F_y[:, None] @ drows
        dgamma = -(dpatch * patch).sum(axis=(1, 2, 3)) / gamma
        return (dpatch / scale).reshape(w.shape), dF_x, dF_y, dgamma

    return (rows @ F_x).reshape(batch, -1), backward
