"""DRAW once more, in PyTorch and from the paper's equations: the same nats, and the same gradients.

Nothing here follows minidraw's code: pixels and filters count from 1 as in the paper, the LSTM is
PyTorch's own, and the gradients are autograd's. Only the names and shapes of the parameters are shared.
"""

import numpy as np
import pytest

from minidraw.adam import Adam, clip_factor, global_norm
from minidraw.autodiff import backward
from minidraw.config import Config
from minidraw.draw import Draw
from minidraw.evaluation import _one_drawing
from minidraw.gradcheck import relative_error

torch = pytest.importorskip("torch", reason="the oracle is written in PyTorch: install minidraw[oracle]")
Normal = torch.distributions.Normal

pytestmark = pytest.mark.oracle

LIMIT = 1e-10  # relative, for the model
BLOG = {"T": 10, "z_size": 10, "enc_size": 256, "dec_size": 256, "A": 28, "B": 28}
SMALL = {"T": 4, "z_size": 3, "enc_size": 7, "dec_size": 5}
CONFIGS = {
    "blog": Config(read_N=5, write_N=5, **BLOG),
    "blog, no attention": Config(read_N=None, write_N=None, **BLOG),
    "attention": Config(read_N=3, write_N=3, A=8, B=8, **SMALL),
    "no attention": Config(read_N=None, write_N=None, A=6, B=6, **SMALL),
    "read only": Config(read_N=3, write_N=None, A=7, B=7, **SMALL),
    "write only": Config(read_N=None, write_N=3, A=7, B=7, **SMALL),
    "colour, learned start": Config(read_N=3, write_N=3, A=6, B=6, channels=3, learned_start=True, **SMALL),
    "colour, learned start, no attention": Config(
        read_N=None, write_N=None, A=4, B=4, channels=3, learned_start=True, **SMALL
    ),
    "wide": Config(read_N=3, write_N=3, A=9, B=6, **SMALL),
    "tall": Config(read_N=3, write_N=3, A=5, B=8, **SMALL),
    "N_read < N_write": Config(read_N=2, write_N=5, A=8, B=8, **SMALL),
    "N_read > N_write, wide, colour": Config(read_N=4, write_N=2, A=9, B=7, channels=3, **SMALL),
}


def lstm(x, h, cell, W, b):
    """PyTorch's LSTM: its gates are in the order i, f, g, o; the columns of W are in the order i, f, o, g."""
    i, f, o, g = torch.vstack([W, b]).T.chunk(4)
    W_x, W_h, b = torch.cat([i, f, g, o]).split([x.shape[1], h.shape[1], 1], dim=1)
    return torch.lstm_cell(x, (h, cell), W_x, W_h, b[:, 0], torch.zeros_like(b[:, 0]))


def filterbank(window, N, A, B):
    """F_x (batch, N, A), F_y (batch, N, B) and gamma (batch, 1, 1, 1) of a window (batch, 5)."""
    g_x, g_y, log_sigma2, log_delta, log_gamma = window[:, :, None, None].unbind(dim=1)  # (21), each (batch, 1, 1)
    g_x = (A + 1) / 2 * (g_x + 1)  # (22)
    g_y = (B + 1) / 2 * (g_y + 1)  # (23)
    delta = (max(A, B) - 1) / (N - 1) * log_delta.exp()  # (24)
    i = torch.arange(1, N + 1, dtype=window.dtype)[:, None]
    mu_x = g_x + (i - N / 2 - 0.5) * delta  # (19)
    mu_y = g_y + (i - N / 2 - 0.5) * delta  # (20)
    a = torch.arange(1, A + 1, dtype=window.dtype)
    b = torch.arange(1, B + 1, dtype=window.dtype)
    F_x = torch.softmax(-((a - mu_x) ** 2) / (2 * log_sigma2.exp()), dim=2)  # (25)
    F_y = torch.softmax(-((b - mu_y) ** 2) / (2 * log_sigma2.exp()), dim=2)  # (26)
    return F_x, F_y, log_gamma.exp()[..., None]


def draw(config, p, x, noise):
    """The canvas c_T (batch, pixels), and for every t the posterior Q(Z_t | h_enc) and its sample z_t."""
    batch, image = len(x), (-1, config.channels, config.B, config.A)

    def L(name, h):
        return h @ p[f"{name}/w"] + p[f"{name}/b"]

    def start(name, size):
        return p[f"start/{name}"].expand(batch, -1) if config.learned_start else x.new_zeros(batch, size)

    def read(x, x_hat, h_dec):
        if config.read_N is None:
            return torch.cat([x, x_hat], dim=1)  # (17)
        F_x, F_y, gamma = filterbank(L("read", h_dec), config.read_N, config.A, config.B)
        patches = [gamma * torch.einsum("njb,npba,nia->npji", F_y, y.reshape(image), F_x) for y in (x, x_hat)]
        return torch.cat([patch.flatten(start_dim=1) for patch in patches], dim=1)  # (27)

    def write(h_dec):
        if config.write_N is None:
            return L("write", h_dec)  # (18)
        w = L("writeW", h_dec).reshape(batch, config.channels, config.write_N, config.write_N)  # (28)
        F_x, F_y, gamma = filterbank(L("write", h_dec), config.write_N, config.A, config.B)
        return (torch.einsum("njb,npji,nia->npba", F_y, w, F_x) / gamma).flatten(start_dim=1)  # (29)

    c = start("c", config.pixels)
    h_enc, cell_enc = start("h_enc", config.enc_size), start("cell_enc", config.enc_size)
    h_dec, cell_dec = start("h_dec", config.dec_size), start("cell_dec", config.dec_size)
    Q, z = [], []
    for t in range(config.T):
        x_hat = x - torch.sigmoid(c)  # (3)
        r = read(x, x_hat, h_dec)  # (4)
        r_and_h_dec = torch.cat([r, h_dec], dim=1)
        h_enc, cell_enc = lstm(r_and_h_dec, h_enc, cell_enc, p["encoder/w"], p["encoder/b"])  # (5)
        mu, log_sigma = L("mu", h_enc), L("sigma", h_enc)  # (1), (2)
        Q.append(Normal(mu, log_sigma.exp()))
        z.append(mu + log_sigma.exp() * noise[t])  # (6)
        h_dec, cell_dec = lstm(z[t], h_dec, cell_dec, p["decoder/w"], p["decoder/b"])  # (7)
        c = c + write(h_dec)  # (8)
    return c, Q, z


def kl_from_prior(Q):
    """KL(Q || N(0, I)) in nats, (batch,)."""
    prior = Normal(torch.zeros_like(Q.mean), torch.ones_like(Q.mean))
    return torch.distributions.kl_divergence(Q, prior).sum(dim=1)


def random_case(config, batch, seed=0):
    """Parameters by name, grey images (batch, pixels) and noise (T, batch, Z): float64 arrays, none of them zero."""
    rng = np.random.default_rng(seed)
    parameters = {}
    for name, shape in config.shapes.items():
        scale = 0.5 if len(shape) == 1 else shape[0] ** -0.5
        parameters[name] = scale * rng.standard_normal(shape)
    return parameters, rng.random((batch, config.pixels)), rng.standard_normal((config.T, batch, config.z_size))


@pytest.mark.parametrize("label", CONFIGS)
def test_nats_and_gradients(label):
    """L_x and L_z of every image, the loss, and the gradient of every parameter."""
    config = CONFIGS[label]
    parameters, x, noise = random_case(config, batch=4)

    model = Draw(config, parameters)
    L_x, L_z = model.nats(x, noise)
    loss = (L_x + L_z).mean()
    gradients = backward(loss, model.parameters.values())

    p = {name: torch.tensor(value, requires_grad=True) for name, value in parameters.items()}
    x, noise = torch.tensor(x), torch.tensor(noise)
    c, Q, _ = draw(config, p, x, noise)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(c, x, reduction="none")
    want_L_x = cross_entropy.sum(dim=1)  # (9)
    want_L_z = sum(kl_from_prior(Q_t) for Q_t in Q)  # (10), (11)
    want_loss = (want_L_x + want_L_z).mean()  # (12)
    want_gradients = torch.autograd.grad(want_loss, list(p.values()))

    errors = {
        "L_x": relative_error(L_x.value, want_L_x.detach().numpy()),
        "L_z": relative_error(L_z.value, want_L_z.detach().numpy()),
        "loss": relative_error(loss.value, want_loss.detach().numpy()),
    }
    for name, got, want in zip(parameters, gradients, want_gradients, strict=True):
        errors[name] = relative_error(got, want.numpy())
    assert {name: error for name, error in errors.items() if not error <= LIMIT} == {}


@pytest.mark.parametrize("label", ["attention", "no attention", "colour, learned start"])
def test_importance_weight(label):
    """log D(x | c_T) + sum_t log p(z_t) - log q(z_t), of one drawing each of binary images; L_x, and L_z by step."""
    config = CONFIGS[label]
    parameters, x, noise = random_case(config, batch=6)
    x = x.round()
    L_x, L_z, log_w = _one_drawing(Draw(config, parameters), x, noise)

    p = {name: torch.tensor(value) for name, value in parameters.items()}
    c, Q, z = draw(config, p, torch.tensor(x), torch.tensor(noise))
    log_D = torch.distributions.Bernoulli(logits=c).log_prob(torch.tensor(x)).sum(dim=1)
    log_p = sum(Normal(0.0, 1.0).log_prob(z_t).sum(dim=1) for z_t in z)
    log_q = sum(Q_t.log_prob(z_t).sum(dim=1) for Q_t, z_t in zip(Q, z, strict=True))

    assert relative_error(L_x, -log_D.numpy()) <= LIMIT
    assert relative_error(L_z, torch.stack([kl_from_prior(Q_t) for Q_t in Q]).numpy()) <= LIMIT
    assert relative_error(log_w, (log_D + log_p - log_q).numpy()) <= LIMIT


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.99)])
@pytest.mark.parametrize("size", [1.0, 1e-8])  # of the gradients; at 1e-8 eps is as large as they are
def test_adam(betas, size):
    """Ten steps, each at another learning rate. From zero, so that the parameters are the sum of their steps."""
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (5,), (2, 3, 2)]
    parameters = [np.zeros(shape) for shape in shapes]
    adam = Adam(parameters, beta1=betas[0], beta2=betas[1])
    want = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    want_adam = torch.optim.Adam(want, betas=betas)
    for step in range(1, 11):
        learning_rate = 1e-3 * (1 + step % 4) / step
        gradients = [size * rng.standard_normal(shape) for shape in shapes]
        for p, gradient in zip(want, gradients, strict=True):
            p.grad = torch.tensor(gradient)
        want_adam.param_groups[0]["lr"] = learning_rate
        want_adam.step()
        adam.update(gradients, learning_rate)
        for got, p in zip(parameters, want, strict=True):
            assert relative_error(got, p.detach().numpy()) <= 1e-12


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e9])
def test_clip(size):
    """The clip by global norm; PyTorch divides by norm + 1e-6, and that much more is allowed."""
    rng = np.random.default_rng(0)
    gradients = [size * rng.standard_normal(shape) for shape in [(30, 4), (5,), (2, 3, 2)]]
    want = [torch.zeros(gradient.shape, dtype=torch.float64, requires_grad=True) for gradient in gradients]
    for p, gradient in zip(want, gradients, strict=True):
        p.grad = torch.tensor(gradient)

    want_norm = float(torch.nn.utils.clip_grad_norm_(want, max_norm=5.0))
    norm = global_norm(gradients)
    factor = clip_factor(norm, 5.0)
    clipped = [factor * g for g in gradients]
    assert relative_error(norm, want_norm) <= 1e-12
    for got, p in zip(clipped, want, strict=True):
        assert relative_error(got, p.grad.numpy()) <= 1e-12 + 1e-6 / want_norm * (want_norm > 5.0)
