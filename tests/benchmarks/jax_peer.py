"""DRAW in JAX, float32: a peer that minidraw's training step is timed against.

Written as one writes JAX to be quick: the loop over t is lax.scan, one product does the maps that share an input,
what does not depend on t is outside the loop, and a whole training step is one jitted function.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from minidraw.backend import to_host

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def lstm(a, cell):
    """Pre-activations a (batch, 4 H), columns i, f, o, g, and memory (batch, H): the new h and memory. (5), (7)."""
    i, f, o, g = jnp.split(a, 4, axis=1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def filterbank(window, N, A, B):
    """F_x (batch, N, A), F_y (batch, N, B) and gamma (batch, 1) of a window (batch, 5): (19) to (26), from 0."""
    g_x, g_y, log_sigma2, log_delta, log_gamma = jnp.split(window, 5, axis=1)
    offset = (jnp.arange(N) - (N - 1) / 2) * (max(A, B) - 1) / (N - 1) * jnp.exp(log_delta)

    def filters(g, size):
        mu = (size - 1) / 2 + (size + 1) / 2 * g + offset  # (batch, N)
        distance = jnp.arange(size) - mu[:, :, None]
        return jax.nn.softmax(-(distance**2) / (2 * jnp.exp(log_sigma2)[:, :, None]), axis=2)

    return filters(g_x, A), filters(g_y, B), jnp.exp(log_gamma)


def loss(config, parameters, x, noise):
    """The mean of L_x + L_z over the batch, from x (batch, pixels) and noise (T, batch, Z)."""
    batch, A, B, pixels, enc, dec = len(x), config.A, config.B, config.pixels, config.enc_size, config.dec_size

    def maps(*names):
        """A function x -> the affine maps of `names` side by side, by one product."""
        W = jnp.concatenate([parameters[f"{name}/w"] for name in names], axis=1)
        b = jnp.concatenate([parameters[f"{name}/b"] for name in names])
        return lambda h: h @ W + b

    decoder, posterior = maps("decoder"), maps("mu", "sigma")
    if config.read_N is None:
        pen, W, b = maps("write"), parameters["encoder/w"], parameters["encoder/b"]
        constant = x @ (W[:pixels] + W[pixels : 2 * pixels]) + b  # all that (17) takes from x is the same for every t

        def see(c, h_dec, h_enc):
            return jnp.concatenate([-jax.nn.sigmoid(c), h_dec, h_enc], axis=1) @ W[pixels:] + constant

        write = pen  # (18)
    else:
        eye, encoder, pen = maps("read"), maps("encoder"), maps("writeW", "write")

        def see(c, h_dec, h_enc):
            F_x, F_y, gamma = filterbank(eye(h_dec), config.read_N, A, B)
            images = (image.reshape(batch, B, A) for image in (x, x - jax.nn.sigmoid(c)))  # (3)
            r = [gamma * (F_y @ image @ F_x.mT).reshape(batch, -1) for image in images]  # (4), (27)
            return encoder(jnp.concatenate([*r, h_dec, h_enc], axis=1))

        def write(h_dec):
            w, window = jnp.split(pen(h_dec), [config.write_N**2], axis=1)
            F_x, F_y, gamma = filterbank(window, config.write_N, A, B)
            patch = (w / gamma).reshape(batch, config.write_N, config.write_N)
            return (F_y.mT @ (patch @ F_x)).reshape(batch, -1)  # (28), (29)

    def advance(states, noise):
        """One step t: the new states, and the sum of L_z."""
        c, h_enc, cell_enc, h_dec, cell_dec = states
        h_enc, cell_enc = lstm(see(c, h_dec, h_enc), cell_enc)  # (5)
        mu, log_sigma = jnp.split(posterior(h_enc), 2, axis=1)  # (1), (2)
        z = mu + jnp.exp(log_sigma) * noise  # (6)
        h_dec, cell_dec = lstm(decoder(jnp.concatenate([z, h_dec], axis=1)), cell_dec)  # (7)
        L_z = 0.5 * jnp.sum(mu**2 + jnp.exp(2 * log_sigma) - 2 * log_sigma - 1)  # (10), (11)
        return (c + write(h_dec), h_enc, cell_enc, h_dec, cell_dec), L_z  # (8)

    sizes = {"c": pixels, "h_enc": enc, "cell_enc": enc, "h_dec": dec, "cell_dec": dec}
    starts = {name: parameters[f"start/{name}"] if config.learned_start else 0.0 for name in sizes}
    states = tuple(jnp.broadcast_to(starts[name], (batch, size)) for name, size in sizes.items())
    (c, *_), L_z = jax.lax.scan(advance, states, noise)
    L_x = jnp.sum(jax.nn.softplus(c) - x * c)  # (9)
    return (L_x + jnp.sum(L_z)) / batch


def train(config, largest, state, x, noise, learning_rate):
    """One step of training from (parameters, m, v, t), Adam's state: the next one, and the loss before it."""
    parameters, m, v, t = state
    nats, gradients = jax.value_and_grad(partial(loss, config))(parameters, x, noise)
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in gradients.values()))
    gradients = jax.tree.map(lambda g: g * jnp.minimum(1, largest / norm), gradients)
    t += 1
    correction1, correction2 = (-jnp.expm1(t * math.log(beta)) for beta in (BETA1, BETA2))  # 1 - beta^t
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, gradients)
    rate = learning_rate / correction1
    parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v / correction2) + EPS), parameters, m, v)
    return (parameters, m, v, t), nats


class JaxPeer:
    """The model and its optimiser, from `parameters`: an array for every name of `config.shapes`."""

    def __init__(self, config, recipe, parameters):
        parameters = jax.tree.map(jnp.array, parameters)
        self.state = parameters, *(jax.tree.map(jnp.zeros_like, parameters) for _ in "mv"), 0.0
        self._loss_and_gradients = jax.jit(jax.value_and_grad(partial(loss, config)))
        self._train = jax.jit(partial(train, config, recipe.clip), donate_argnums=0)

    def ready(self, *batch):
        """The arrays of a batch on JAX's device."""
        return jax.block_until_ready([jnp.asarray(to_host(array)) for array in batch])

    def loss_and_gradients(self, x, noise):
        """The loss of images x (batch, pixels) under noise (T, batch, Z), and its gradients by name."""
        nats, gradients = self._loss_and_gradients(self.state[0], *self.ready(x, noise))
        return float(nats), jax.device_get(gradients)

    def step(self, x, noise, learning_rate):
        """One step of training; returns the loss before it."""
        self.state, nats = jax.block_until_ready(self._train(self.state, x, noise, learning_rate))
        return float(nats)
