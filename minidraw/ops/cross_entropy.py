"""The cost of a class: the logits of chapter 4, for more than two possibilities. Chapter 16."""

from minidraw.autodiff import primitive
from minidraw.backend import array_module
from minidraw.errors import BadInput


@primitive
def cross_entropy(logits, labels):
    """-log p(label) in nats, (batch,), with p = softmax(logits).

    Logits a (batch, K); labels (batch,) of 0 to K - 1, whole numbers, are data.

        p_k = e^(a_k) / sum_j e^(a_j)                              (16.2)
        nats = -log p_label = log sum_j e^(a_j) - a_label          (16.3)

    The largest logit of a row is subtracted from all of it first: that changes nothing,
    (16.4), and no exponential overflows. For K = 2 and logits (0, c) it is the cost of
    a pixel in chapter 4, (16.6). That a label is below K is not checked, for a GPU
    would have to be waited for. Raises BadInput for other shapes and types. Chapter 16.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
        raise BadInput(
            f"cross_entropy: logits {logits.shape} and {labels.dtype} labels {labels.shape} should be (batch, K) and "
            "whole numbers (batch,)"
        )
    xp = array_module(logits)
    a = logits - logits.real.max(axis=1, keepdims=True)  # (16.4); real: so that the complex step can pass
    onehot = labels[:, None] == xp.arange(logits.shape[1])
    weights = xp.exp(a)
    total = weights.sum(axis=1, keepdims=True)
    p = weights / total  # (16.2)

    def backward(dnats):
        return dnats[:, None] * (p - onehot), None  # (16.5)

    return xp.log(total[:, 0]) - (onehot * a).sum(axis=1), backward  # (16.3)
