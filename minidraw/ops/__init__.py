"""The ops: each a pure function of arrays that returns its value and its hand-derived backward."""

from minidraw.ops.affine import affine, masked_affine
from minidraw.ops.attention import filterbank, read, write
from minidraw.ops.bernoulli import bernoulli, error_image
from minidraw.ops.cross_entropy import cross_entropy
from minidraw.ops.latent import kl, sample
from minidraw.ops.lstm import lstm

__all__ = ["affine", "bernoulli", "cross_entropy", "error_image", "filterbank", "kl", "lstm", "masked_affine", "read"]
__all__ += ["sample", "write"]
