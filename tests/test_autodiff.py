"""The tape: what a user of `backward` may rely on."""

import gc

import numpy as np
import pytest

from minidraw.autodiff import Tensor, backward, intercept, no_grad, primitive
from minidraw.errors import BadInput
from minidraw.ops import affine, lstm
from minidraw.ops import elementary as e
from minidraw.ops.affine import FactoredGradient


def test_a_value_used_many_times_gathers_every_gradient():
    a = Tensor(np.array([1.0, 2.0]))
    b = a * a + a + 3 * a  # db/da = 2 a + 4
    (gradient,) = backward(e.sum(b), [a])
    np.testing.assert_allclose(gradient, [6, 8])


def test_adding_a_value_to_itself_leaves_the_arrays_of_ops_alone():
    a = Tensor(np.ones(3))
    b = a + a
    c = b + b
    assert backward(e.sum(c), [a])[0].tolist() == [4, 4, 4]


def test_diamonds_are_visited_once_in_creation_order():
    visits = []

    @primitive
    def step(a, b):
        def back(dy):
            visits.append(1)
            return dy, dy

        return a + b, back

    x = first = Tensor(np.array(1.0))
    for _ in range(30):  # 2^30 paths, 30 nodes
        x = step(x, x)
    assert backward(x, [first])[0] == 2.0**30
    assert len(visits) == 30


@pytest.mark.slow
def test_long_chains_need_no_recursion():
    x = start = Tensor(np.array(0.5))
    for _ in range(50_000):
        x = x + 1.0
    assert backward(x, [start])[0] == 1
    for _ in range(50_000):  # a chain nobody runs backward through has to be freed without recursion, too
        x = x + 1.0
    del x


def test_unused_outputs_have_gradient_zero():
    a, cell = Tensor(np.ones((2, 8))), Tensor(np.ones((2, 2)))
    h, _ = lstm(a, cell)
    only_h = backward(e.sum(h), [a, cell])
    _, bare = lstm.on_arrays(a.value, cell.value)
    for got, want in zip(only_h, bare(np.ones((2, 2)), np.zeros((2, 2))), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_parameter_out_of_reach_has_gradient_zero():
    a, b = Tensor(np.ones(2)), Tensor(np.ones((3, 2)))
    assert backward(e.sum(a), [a, b])[1].tolist() == np.zeros((3, 2)).tolist()


def test_gradients_of_values_in_the_middle():
    a = Tensor(np.array([2.0]))
    b = a * a
    assert [g.item() for g in backward(e.sum(b * b), [a, b])] == [32, 8]


def test_nothing_is_recorded_inside_no_grad():
    a = Tensor(np.ones(2))
    with no_grad():
        b = a * a
    assert b.node.name == "leaf"
    c = b * a
    assert backward(e.sum(c), [a])[0].tolist() == [1, 1]  # b is a constant
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert (a * a).node.name == "multiply"


def test_a_second_backward_is_refused():
    a = Tensor(np.ones(2))
    shared = a * a
    loss, other = e.sum(shared), e.sum(shared * 2)
    backward(loss, [a])
    with pytest.raises(BadInput, match="compute the loss afresh"):
        backward(loss, [a])
    with pytest.raises(BadInput, match="compute the loss afresh"):
        backward(other, [a])  # shares a part that is gone


def test_the_loss_must_be_a_scalar():
    a = Tensor(np.ones(2))
    with pytest.raises(BadInput, match=r"scalar loss, not at shape \(2,\)"):
        backward(a * a, [a])


@pytest.mark.parametrize(
    ("back", "message"),
    [
        (lambda dy: dy[:1], r"wrong: gradient of shape \(1,\) for an input of \(3,\)"),
        (lambda dy: (dy, dy), "2 gradients"),
    ],
)
def test_a_wrong_backward_is_named(back, message):
    @primitive
    def wrong(a):
        return a, back

    a = Tensor(np.ones(3))
    with pytest.raises(BadInput, match=message):
        backward(e.sum(wrong(a)), [a])


def test_backward_frees_as_it_goes_and_leaves_no_garbage():
    held, peak = 0, 0

    class Block(np.ndarray):
        """An array that counts how many of its kind are alive."""

        def __new__(cls):
            nonlocal held, peak
            held += 1
            peak = max(peak, held)
            return np.zeros(1).view(cls)

        def __del__(self):
            nonlocal held
            held -= 1

    @primitive
    def keep(a):
        block = Block()

        def back(dy):
            alive.append(held)
            return dy + block.sum()

        return a + 1.0, back

    alive = []
    gc.collect()
    gc.disable()
    try:
        x = start = Tensor(np.zeros(1))
        for _ in range(20):
            x = keep(x)
        loss = e.sum(x)
        backward(loss, [start])
        assert alive[0] >= 20 and alive[-1] <= 2 * 2  # each block goes with its node (views are counted, too)
        del loss, x
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_value_that_no_backward_needs_is_freed_at_once():
    """The sum of two tensors needs neither of them to go back."""
    import weakref

    class Array(np.ndarray):
        pass

    a, b = Tensor(np.ones(3)), Tensor(np.ones(3))
    middle = a + b
    middle.value = middle.value.view(Array)
    alive = weakref.ref(middle.value)
    loss = e.sum(middle + 1.0)
    del middle
    assert alive() is None
    assert [g.tolist() for g in backward(loss, [a, b])] == [[1, 1, 1], [1, 1, 1]]


def test_a_weight_used_often_costs_one_product_and_agrees_with_the_sum(rng):
    W, b = Tensor(rng.standard_normal((3, 3))), Tensor(np.zeros(3))
    xs = [rng.standard_normal((4, 3)) for _ in range(5)]
    loss = e.sum(affine(xs[0], W, b))
    for x in xs[1:]:
        loss = loss + e.sum(affine(x, W, b))
    dense_use = e.sum(W * W)  # and once through an op that gives an array
    (got,) = backward(loss + dense_use, [W])
    want = sum(x.T @ np.ones((4, 3)) for x in xs) + 2 * W.value
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_factored_gradient_keeps_the_tapes_contract(rng):
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    factored, dense = FactoredGradient((x, dy)), np.ones((3, 2))
    assert factored.shape == (3, 2)
    np.testing.assert_allclose(factored + dense, x.T @ dy + 1)
    np.testing.assert_allclose(dense + factored, x.T @ dy + 1)
    np.testing.assert_allclose((factored + factored).dense(), 2 * x.T @ dy)


def test_dtype_in_dtype_out(rng):
    a = Tensor(rng.standard_normal((2, 8)).astype("f"))
    h, cell = lstm(a, np.zeros((2, 2), "f"))
    loss = (h * cell + 2 - e.sigmoid(h) / 3).mean()
    assert loss.value.dtype == np.float32
    assert backward(loss, [a])[0].dtype == np.float32


def test_ops_can_be_intercepted():
    """To time them, or to put others in their place; backward goes through what stood there."""
    a, seen = Tensor(np.array([1.0, 2.0])), []

    def twice(op):
        def run(*inputs, **settings):
            seen.append(op.__name__)
            value, back = op(*inputs, **settings)
            return 2 * value, lambda dy: back(2 * dy)

        return run if op.__name__ == "exp" else op

    with intercept(twice):
        loss = e.sum(e.exp(a))
    np.testing.assert_allclose(backward(loss, [a])[0], 2 * np.exp(a.value))
    assert seen == ["exp"] and e.exp(a).value[0] == np.e
