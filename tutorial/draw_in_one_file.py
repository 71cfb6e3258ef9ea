"""DRAW in one file: what chapters 3 to 11 derive, in NumPy, every gradient by hand.

    python tutorial/draw_in_one_file.py [--steps 1200] [--seed 0] [--out drawn.png]

In go the binarised MNIST digits of this repository (nothing else of minidraw is used); out come the nats that an image
costs, a line every 100 steps, and after some minutes a picture of digits that nobody wrote: rows of them, and in the
last row how the first two came to be, from t = 1 to T.

Read it from top to bottom. A function returns its value and what the way back needs; the way back, its `_backward`,
stands below it. `dy` is the gradient of the loss with respect to y, and has its shape. (5.3) is an equation of chapter
5, a whole number such as (27) one of the paper, arXiv 1502.04623. The symbols are in notation.md, all gradients on one
page in gradients.md.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from matplotlib.image import imsave

MNIST = Path(__file__).parents[1] / "minidraw" / "bundled" / "mnist.npz"
A, T, READ_N, WRITE_N, Z, ENC, DEC = 28, 5, 12, 12, 10, 128, 128  # the sizes of notation.md; images are square, B = A
BATCH, RATE, WARM_UP, FLOOR, CLIP = 100, 3e-3, 100, 0.05, 5.0


def sigmoid(a):
    return 1 / (1 + np.exp(-a.clip(-80)))  # (4.2); in float32 e^-a overflows below -88


def affine(theta, name, x):
    """y (batch, Y) = x W + b, with the W and b of that name. Chapter 3."""
    return x @ theta[f"{name}/w"] + theta[f"{name}/b"], (x, theta[f"{name}/w"])  # (3.4)


def affine_backward(dtheta, name, dy, x, W):
    dtheta[f"{name}/w"] += x.T @ dy  # (3.7), a term of the sum over t in (5.11)
    dtheta[f"{name}/b"] += dy.sum(axis=0)  # (3.5)
    return dy @ W.T  # (3.6)


def lstm(theta, name, cell, *inputs):
    """The new output and memory of an LSTM, (batch, H); its last output is among the inputs. Chapter 5."""
    a, kept = affine(theta, name, np.hstack(inputs))  # (5.1)
    a_i, a_f, a_o, a_g = np.split(a, 4, axis=1)
    i, f, o, g = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o), np.tanh(a_g)  # (5.2)
    u = f * cell + i * g  # (5.3): the new memory
    s = np.tanh(u)
    return o * s, u, (np.cumsum([x.shape[1] for x in inputs[:-1]]), cell, i, f, o, g, s, *kept)  # (5.4)


def lstm_backward(dtheta, name, dh, dcell_new, stops, cell, i, f, o, g, s, *kept):
    do, du = dh * s, dcell_new + dh * o * (1 - s * s)  # (5.5), (5.6): from the next step, and through h
    di, df, dg = du * g, du * cell, du * i  # (5.7)
    da = np.hstack([di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g * g)])  # (5.9)
    return du * f, *np.split(affine_backward(dtheta, name, da, *kept), stops, axis=1)  # (5.8)


def sample(mu, log_sigma, noise):
    """The latents z (batch, Z) from N(mu, sigma^2), and the nats (batch,) it takes to send them. Chapter 6."""
    sigma = np.exp(log_sigma)
    kl = 0.5 * (mu**2 + sigma**2 - 2 * log_sigma - 1).sum(axis=1)  # (6.6)
    return mu + sigma * noise, kl, (mu, sigma, noise)  # (6.8)


def sample_backward(dz, dkl, mu, sigma, noise):
    return dz + dkl * mu, dz * noise * sigma + dkl * (sigma**2 - 1)  # (6.9) and (6.7)


def filterbank(theta, name, N, h_dec):
    """F_x, F_y (batch, 1, N, A), gamma (batch, 1, 1, 1): the window that a map makes of h_dec. Chapters 10 and 11."""
    p, kept = affine(theta, name, h_dec)  # (11.3)
    a, offset = np.arange(A, dtype=p.dtype), np.arange(N, dtype=p.dtype)[:, None] - (N - 1) / 2
    g = (A - 1) / 2 + (A + 1) / 2 * p[:, :2, None, None]  # (10.1), x and y side by side: (batch, 2, 1, 1)
    sigma2, delta, gamma = np.exp(p.T[2:, :, None, None, None])
    mu = g + offset * (A - 1) / (N - 1) * delta  # (10.2), (10.3): (batch, 2, N, 1)
    far = (a - mu) ** 2
    F = np.exp((far.min(axis=3, keepdims=True) - far) / (2 * sigma2))  # (10.5)
    F = F / F.sum(axis=3, keepdims=True)  # (10.4)
    return (F[:, :1], F[:, 1:], gamma), (F, a - mu, sigma2, mu - g, gamma, *kept)


def filterbank_backward(dtheta, name, dF_x, dF_y, dgamma, F, a_mu, sigma2, mu_g, gamma, *kept):
    dF = np.stack([dF_x.sum(axis=1), dF_y.sum(axis=1)], axis=1)  # (3.3): they served one image or two
    dl = F * (dF - (F * dF).sum(axis=3, keepdims=True))  # (10.7); times a slope of l, and summed, it is (10.8)
    dmu = (dl * a_mu / sigma2).sum(axis=3, keepdims=True)  # (10.9)
    dg = (A + 1) / 2 * dmu.sum(axis=(2, 3))  # (10.11)
    dlog_sigma2 = (dl * a_mu**2 / (2 * sigma2)).sum(axis=(1, 2, 3))  # (10.10)
    dlog_delta = (dmu * mu_g).sum(axis=(1, 2, 3))  # (10.12)
    dp = np.column_stack([dg, dlog_sigma2, dlog_delta, dgamma * gamma.ravel()])  # (10.13)
    return affine_backward(dtheta, name, dp, *kept)


def read(x, x_hat, F_x, F_y, gamma):
    """The glimpse r (batch, 2 N N) of the images x and x_hat (batch, A A), through the same filters. Chapter 11."""
    X = np.stack([x, x_hat], axis=1).reshape(-1, 2, A, A)
    P = F_y @ X @ F_x.mT
    return (gamma * P).reshape(len(x), -1), (X, F_x, F_y, gamma, P)  # (11.1)


def read_backward(dr, X, F_x, F_y, gamma, P):
    dr = dr.reshape(P.shape)
    dP = gamma * dr  # (11.5)
    dX, dF_x, dF_y = F_y.mT @ dP @ F_x, dP.mT @ (F_y @ X), dP @ F_x @ X.mT  # (11.6), (11.7), (11.8)
    return dX[:, 1].reshape(len(X), -1), dF_x, dF_y, (dr * P).sum(axis=(1, 2, 3))  # (11.5); x is data


def write(w, F_x, F_y, gamma):
    """The stroke (batch, A A) of the patch w (batch, N N). Chapter 11."""
    Q = w.reshape(-1, 1, WRITE_N, WRITE_N) / gamma
    return (F_y.mT @ Q @ F_x).reshape(len(w), -1), (Q, F_x, F_y, gamma)  # (11.2)


def write_backward(dstroke, Q, F_x, F_y, gamma):
    D = dstroke.reshape(-1, 1, A, A)
    dQ, dF_x, dF_y = F_y @ D @ F_x.mT, Q.mT @ (F_y @ D), Q @ F_x @ D.mT  # (11.9), (11.10): reading once more
    return (dQ / gamma).reshape(len(Q), -1), dF_x, dF_y, -(dQ * Q / gamma).sum(axis=(1, 2, 3))  # (11.9)


def draw(theta, x, noise):
    """Look at images x (batch, A A) and draw them, a step for each noise (batch, Z).

    Returns L_x and L_z, (batch,) in nats, the last canvas, and what each step keeps for
    the way back. Chapters 8 and 9.
    """
    c, h_enc, cell_enc, h_dec, cell_dec = (np.zeros((len(x), size), x.dtype) for size in (A * A, ENC, ENC, DEC, DEC))
    L_z, steps = 0, []
    for noise_t in noise:
        steps.append(k := SimpleNamespace(p=sigmoid(c)))
        x_hat = x - k.p  # (3), (9.1)
        F, k.F_read = filterbank(theta, "read", READ_N, h_dec)  # (21) to (26)
        r, k.r = read(x, x_hat, *F)  # (4), (27)
        h_enc, cell_enc, k.h_enc = lstm(theta, "encoder", cell_enc, r, h_dec, h_enc)  # (5), (9.3)
        mu, k.mu = affine(theta, "mu", h_enc)  # (1), (8.2)
        log_sigma, k.log_sigma = affine(theta, "sigma", h_enc)  # (2), (8.2)
        z, kl, k.z = sample(mu, log_sigma, noise_t)  # (6), (9.4)
        h_dec, cell_dec, k.h_dec = lstm(theta, "decoder", cell_dec, z, h_dec)  # (7), (9.5)
        w, k.w = affine(theta, "writeW", h_dec)  # (28), (11.3)
        F, k.F_write = filterbank(theta, "write", WRITE_N, h_dec)  # (21) to (26)
        stroke, k.stroke = write(w, *F)  # (29)
        c, L_z = c + stroke, L_z + kl  # (8), (9.6); (11), (9.8)
    L_x = (np.maximum(c, 0) + np.log1p(np.exp(-np.abs(c))) - x * c).sum(axis=1)  # (9); (4.4), (4.5)
    return L_x, L_z, c, steps


def gradients(theta, x, c, steps):
    """The gradient of the mean of L_x + L_z, (12), by name: `draw` read bottom to top.

    What was used several times sums what comes back, (2.2). The last step's states hear
    from no next step: there is none.
    """
    dtheta = {name: np.zeros_like(value) for name, value in theta.items()}
    dnats, dh_enc, dcell_enc, dh_dec, dcell_dec = 1 / len(x), 0, 0, 0, 0
    dc = dnats * (sigmoid(c) - x)  # (9); (4.6)
    for k in reversed(steps):
        dw, *dF = write_backward(dc, *k.stroke)  # (8), (29)
        dh_dec = dh_dec + filterbank_backward(dtheta, "write", *dF, *k.F_write)  # (26) to (21)
        dh_dec = dh_dec + affine_backward(dtheta, "writeW", dw, *k.w)  # (28)
        dcell_dec, dz, dh_dec = lstm_backward(dtheta, "decoder", dh_dec, dcell_dec, *k.h_dec)  # (7)
        dmu, dlog_sigma = sample_backward(dz, dnats, *k.z)  # (6), (11)
        dh_enc = dh_enc + affine_backward(dtheta, "sigma", dlog_sigma, *k.log_sigma)  # (2)
        dh_enc = dh_enc + affine_backward(dtheta, "mu", dmu, *k.mu)  # (1)
        dcell_enc, dr, dh, dh_enc = lstm_backward(dtheta, "encoder", dh_enc, dcell_enc, *k.h_enc)  # (5)
        dx_hat, *dF = read_backward(dr, *k.r)  # (27), (4)
        dh_dec = dh_dec + dh + filterbank_backward(dtheta, "read", *dF, *k.F_read)  # (26) to (21)
        dc = dc - dx_hat * k.p * (1 - k.p)  # (3); (9.2)
    return dtheta


def initial(rng):
    """The fourteen parameters theta, float32 arrays by name: weights from N(0, 1 / rows), biases zero. Chapter 12."""
    maps = {"read": (DEC, 5), "encoder": (2 * READ_N**2 + DEC + ENC, 4 * ENC), "mu": (ENC, Z), "sigma": (ENC, Z)}
    maps |= {"decoder": (Z + DEC, 4 * DEC), "writeW": (DEC, WRITE_N**2), "write": (DEC, 5)}
    weights = {f"{name}/w": rng.standard_normal(shape) / shape[0] ** 0.5 for name, shape in maps.items()}
    biases = {f"{name}/b": np.zeros(columns) for name, (_, columns) in maps.items()}
    return {name: array.astype(np.float32) for name, array in (weights | biases).items()}


def adam(theta, dtheta, m, v, t, rate, beta1=0.9, beta2=0.999, eps=1e-8):
    """Step t = 1, 2, ... downhill; changes theta and the averages m and v (empty at first), by name. Chapter 7."""
    factor = min(1, CLIP / np.sqrt(sum((g * g).sum() for g in dtheta.values())))  # (7.7)
    for name, g in dtheta.items():
        m[name] = beta1 * m.get(name, 0) + (1 - beta1) * factor * g  # (7.2)
        v[name] = beta2 * v.get(name, 0) + (1 - beta2) * (factor * g) ** 2  # (7.2)
        m_hat, v_hat = m[name] / (1 - beta1**t), v[name] / (1 - beta2**t)  # (7.4)
        theta[name] = theta[name] - rate * m_hat / (np.sqrt(v_hat) + eps)  # (7.5)


def generate(theta, z):
    """The means of all canvases, (T, count, A A), drawn from latents z (T, count, Z) from N(0, 1), (13).

    An encoder with mu = 0 and sigma = 1 proposes the prior: then (6) makes z of noise, and what it read plays no part.
    """
    prior = theta | {name: 0 * theta[name] for name in ("mu/w", "mu/b", "sigma/w", "sigma/b")}
    _, _, c, steps = draw(prior, np.zeros((z.shape[1], A * A), z.dtype), z)
    return np.stack([*(k.p for k in steps[1:]), sigmoid(c)])


def main():
    parser = argparse.ArgumentParser(description="DRAW learns to draw digits, and draws some.")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default="drawn.png")
    args = parser.parse_args()
    if not (args.steps > 0 <= args.seed and args.out.suffix == ".png" and args.out.parent.is_dir() and MNIST.is_file()):
        parser.error(f"--steps is 1 or more, --seed 0 or more, --out a .png in a folder that exists; {MNIST} is needed")
    train, validation = (np.unpackbits(np.load(MNIST)[split], axis=1) for split in ("train", "validation"))
    rng = np.random.default_rng(args.seed)
    theta, m, v, nats = initial(rng), {}, {}, []
    for step in range(1, args.steps + 1):
        x = train[rng.integers(len(train), size=BATCH)].astype(np.float32)
        L_x, L_z, c, steps = draw(theta, x, rng.standard_normal((T, BATCH, Z), np.float32))
        fall = np.cos(np.pi * max(0, step - WARM_UP) / max(1, args.steps - WARM_UP))
        rate = RATE * min(1, step / WARM_UP) * (FLOOR + (1 - FLOOR) * 0.5 * (1 + fall))
        adam(theta, gradients(theta, x, c, steps), m, v, step, float(rate))
        nats.append((L_x + L_z).mean())
        if step % 100 == 0 or step == args.steps:
            print(f"step {step}: {np.mean(nats[-100:]):.1f} nats an image", flush=True)
    x, noise = validation.reshape(40, -1, A * A), rng.standard_normal((40, T, len(validation) // 40, Z), np.float32)
    nats = [sum(draw(theta, x[k].astype(np.float32), noise[k])[:2]) for k in range(40)]
    print(f"validation: {np.mean(nats):.1f} nats an image", flush=True)
    means = generate(theta, rng.standard_normal((T, 8 * T, Z), np.float32))
    tiles = np.concatenate([means[-1], means[:, 0], means[:, 1]]).reshape(-1, 2 * T, A, A)  # (rows, 2 T, A, A)
    imsave(args.out, tiles.swapaxes(1, 2).reshape(-1, 2 * T * A).repeat(3, 0).repeat(3, 1), cmap="gray", vmin=0, vmax=1)


if __name__ == "__main__":
    main()
