"""The latent z: the reparameterised sample, and its cost in nats. Chapter 6."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module, fuse


@primitive
def sample(mu, log_sigma, noise):
    """z = mu + sigma * noise, (6.8), all (batch, Z); noise is N(0, 1), and data.

    DRAW (6), chapter 6.
    """
    z, sigma = _reparameterised(mu, log_sigma, noise)

    def backward(dz):
        return dz, _dlog_sigma(dz, noise, sigma), None

    return z, backward


@fuse
def _reparameterised(mu, log_sigma, noise):
    """z, and sigma; all arrays (batch, Z)."""
    sigma = array_module(mu).exp(log_sigma)
    return mu + sigma * noise, sigma  # (6.8)


@fuse
def _dlog_sigma(dz, noise, sigma):
    return dz * noise * sigma  # (6.9)


@primitive
def kl(mu, log_sigma):
    """KL(N(mu, sigma^2) || N(0, I)), nats (batch,), from mu and log_sigma (batch, Z).

    DRAW (10), (6.6): 1/2 sum_k (mu_k^2 + sigma_k^2 - log sigma_k^2 - 1). Chapter 6.
    """
    sigma2 = array_module(mu).exp(2 * log_sigma)

    def backward(dnats):
        dnats = dnats[:, None]
        return dnats * mu, dnats * (sigma2 - 1)  # (6.7)

    return 0.5 * (mu * mu + sigma2 - 2 * log_sigma - 1).sum(axis=1), backward
