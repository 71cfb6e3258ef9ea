"""What training minimises: the nats of a batch, and their gradients. Chapter 12."""

import numpy as np

from minidraw.autodiff import backward


def nats_and_gradients(model, x, noise, batch_size):
    """What images x (n, pixels) and noise (T, n, Z) contribute to a batch of `batch_size`.

    Returns (L_x, L_z, gradients): two 0-d arrays in nats and a list of arrays in the
    parameters' order. Summed over the parts of a batch they are its means, and the
    gradients of the mean of L_x + L_z, DRAW (12).
    """
    with np.errstate(all="ignore"):  # what overflows shows in the values: the trainer looks at them
        L_x, L_z = (nats.sum() * (1 / batch_size) for nats in model.nats(x, noise))
        return L_x.value, L_z.value, backward(L_x + L_z, model.parameters.values())
