"""DRAW in PyTorch, float32: a peer that minidraw's training step is timed against.

Written as one writes PyTorch to be quick: stacks of small products as bmm, one product for maps that share an
input, what does not depend on t outside the loop, fused Adam. The LSTM is composed: torch.lstm_cell is no faster.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

LONGEST = 10  # steps t in one compiled graph, at most: longer graphs run quicker, and take minutes to compile


def lstm(a, cell):
    """Pre-activations a (batch, 4 H), columns i, f, o, g, and memory (batch, H): the new h and memory. (5), (7)."""
    gates, g = a.split([3 * cell.shape[1], cell.shape[1]], dim=1)
    i, f, o = gates.sigmoid().chunk(3, dim=1)
    cell = f * cell + i * g.tanh()
    return o * cell.tanh(), cell


class Filterbank:
    """A function window (batch, 5) -> F_x, F_y (batch, N, A), gamma (batch, 1), for square images: (19) to (26)."""

    def __init__(self, N, A, device):
        self.pixels = torch.arange(A, dtype=torch.float32, device=device)  # from 0, like the filters
        self.offset = (torch.arange(N, dtype=torch.float32, device=device) - (N - 1) / 2) * (A - 1) / (N - 1)
        self.middle, self.reach = (A - 1) / 2, (A + 1) / 2

    def __call__(self, window):
        g, log_sigma2, log_delta, log_gamma = window.split([2, 1, 1, 1], dim=1)
        mu = (self.middle + self.reach * g)[:, :, None] + (log_delta.exp() * self.offset)[:, None]  # (batch, 2, N)
        distance = self.pixels - mu[..., None]  # (batch, 2, N, A)
        exponent = distance.square() * (-0.5 * (-log_sigma2).exp())[..., None, None]
        return *torch.softmax(exponent, dim=3).unbind(1), log_gamma.exp()


class TorchPeer:
    """The model and its optimiser, from `parameters`: an array for every name of `config.shapes`."""

    def __init__(self, config, recipe, parameters, device, compiled):
        """`compiled`: the loop over t, forward and backward, by torch.compile; otherwise all is eager."""
        self.config, self.recipe, self.device = config, recipe, "cuda" if device == "gpu" else device
        self.parameters = {
            name: torch.tensor(array, requires_grad=True, device=self.device) for name, array in parameters.items()
        }
        self.adam = torch.optim.Adam(self.parameters.values(), fused=True)  # betas 0.9 and 0.999, eps 1e-8
        if config.read_N is not None:
            self.read_filters = Filterbank(config.read_N, config.A, self.device)
            self.write_filters = Filterbank(config.write_N, config.A, self.device)
        self.stretch = max(steps for steps in range(1, LONGEST + 1) if config.T % steps == 0)
        if compiled:
            self._draw = torch.compile(self._draw)

    def _map(self, *names):
        """Bias and weight of the affine map of each name, side by side: one product does them all."""
        b, W = ([self.parameters[f"{name}/{kind}"] for name in names] for kind in "bw")
        return torch.cat(b), torch.cat(W, dim=1)

    def _maps(self, x):
        """All maps by what they make, (bias, weight) each, for images x (batch, pixels).

        Without attention the encoder begins with x W_x + (x - sigmoid(c)) W_x_hat, and what x does there is the same
        for every t: it goes into the bias, (batch, 4 H), and sigmoid(c) is left.
        """
        maps = {"encoder": self._map("encoder"), "posterior": self._map("mu", "sigma"), "decoder": self._map("decoder")}
        if self.config.read_N is not None:
            return maps | {"read": self._map("read"), "write": self._map("writeW", "write")}
        b, W = maps["encoder"]
        W_x, W_rest = W.tensor_split([self.config.pixels])
        constant = torch.addmm(b, x, W_x + W_rest[: self.config.pixels])
        return maps | {"encoder": (constant, W_rest), "write": self._map("write")}

    def _start(self, batch):
        """c_0, h_enc, cell_enc, h_dec, cell_dec, each (batch, size): learned, or zero.

        In type and layout like later states, so that one compiled graph serves every stretch.
        """
        config, enc, dec = self.config, self.config.enc_size, self.config.dec_size
        sizes = {"c": config.pixels, "h_enc": enc, "cell_enc": enc, "h_dec": dec, "cell_dec": dec}
        if config.learned_start:
            return tuple(self.parameters[f"start/{name}"].repeat(batch, 1) for name in sizes)
        return tuple(torch.zeros(batch, size, device=self.device) for size in sizes.values())

    def _read(self, x, c, h_dec, maps):
        """What the encoder sees of x and the canvas, in parts: two glimpses (batch, N^2) by (27), or -sigmoid(c)."""
        config = self.config
        if config.read_N is None:
            return [-c.sigmoid()]
        F_x, F_y, gamma = self.read_filters(torch.addmm(maps["read"][0], h_dec, maps["read"][1]))
        images = (image.view(-1, config.B, config.A) for image in (x, x - c.sigmoid()))  # (3)
        return [gamma * F_y.bmm(image).bmm(F_x.mT).flatten(1) for image in images]

    def _write(self, c, h_dec, maps):
        """The canvas c (batch, pixels) with the stroke of (28, 29) added, or that of (18)."""
        config = self.config
        w = torch.addmm(maps["write"][0], h_dec, maps["write"][1])
        if config.write_N is None:
            return c + w
        w, window = w.split([config.write_N**2, 5], dim=1)
        F_x, F_y, gamma = self.write_filters(window)
        patch = (w / gamma).view(-1, config.write_N, config.write_N)
        return torch.baddbmm(c.view(-1, config.B, config.A), F_y.mT, patch.bmm(F_x)).flatten(1)

    def _draw(self, x, noise, states, maps):
        """A stretch of steps t, one for each of noise (steps, batch, Z): the new states, and the sum of L_z."""
        c, h_enc, cell_enc, h_dec, cell_dec = states
        Q = []
        for noise_t in noise.unbind():
            r = self._read(x, c, h_dec, maps)  # (3), (4)
            b, W = maps["encoder"]
            h_enc, cell_enc = lstm(torch.addmm(b, torch.cat([*r, h_dec, h_enc], dim=1), W), cell_enc)  # (5)
            Q.append(torch.addmm(maps["posterior"][0], h_enc, maps["posterior"][1]))  # (1), (2)
            mu, log_sigma = Q[-1].chunk(2, dim=1)
            z = torch.addcmul(mu, log_sigma.exp(), noise_t)  # (6)
            b, W = maps["decoder"]
            h_dec, cell_dec = lstm(torch.addmm(b, torch.cat([z, h_dec], dim=1), W), cell_dec)  # (7)
            c = self._write(c, h_dec, maps)  # (8)
        mu, log_sigma = torch.stack(Q).chunk(2, dim=2)
        L_z = 0.5 * (mu.square() + (2 * log_sigma).exp() - 2 * log_sigma - 1).sum()  # (10), (11)
        return (c, h_enc, cell_enc, h_dec, cell_dec), L_z

    def _backward(self, x, noise):
        """The mean of L_x + L_z over the batch, from images x and noise, arrays; every parameter gets its grad."""
        x, noise = (torch.as_tensor(array, device=self.device) for array in (x, noise))
        maps, states, nats = self._maps(x), self._start(len(x)), 0
        for stretch in noise.split(self.stretch):
            states, L_z = self._draw(x, stretch, states, maps)
            nats = nats + L_z
        loss = (nats + binary_cross_entropy_with_logits(states[0], x, reduction="sum")) / len(x)  # (9)
        self.adam.zero_grad()
        loss.backward()
        return loss.item()

    def loss_and_gradients(self, x, noise):
        """The loss of images x (batch, pixels) under noise (T, batch, Z), and its gradients by name."""
        loss = self._backward(x, noise)
        return loss, {name: parameter.grad.cpu().numpy() for name, parameter in self.parameters.items()}

    def step(self, x, noise, learning_rate):
        """One step of training; returns the loss before it."""
        loss = self._backward(x, noise)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip)
        self.adam.param_groups[0]["lr"] = learning_rate
        self.adam.step()
        return loss
