"""Every gradient, against two witnesses and its composed twin; and the checker itself, against wrong gradients."""

import numpy as np
import pytest

from minidraw import gradcheck, gradcheck_cases, ops
from minidraw.autodiff import Tensor, backward, dense
from minidraw.errors import BadInput
from minidraw.ops import elementary
from minidraw.ops.affine import affine, plain_affine
from minidraw.ops.attention import filterbank, plain_filterbank
from support import twins

PLAIN = {affine.on_arrays: plain_affine.on_arrays, filterbank.on_arrays: plain_filterbank.on_arrays}
OP_CASES, MODEL_CASES = gradcheck_cases.op_cases(), gradcheck_cases.model_cases()


@pytest.mark.parametrize("case", OP_CASES, ids=lambda case: case.label)
def test_every_op_and_input(case):
    for row in case.run():
        assert row.differences <= 1e-7 and row.complex_step <= 1e-12, row


@pytest.mark.slow
@pytest.mark.parametrize("case", MODEL_CASES, ids=lambda case: case.label)
def test_the_whole_model_and_every_parameter(case):
    for row in case.run():
        assert row.differences <= 1e-7 and row.complex_step <= 1e-12, row


def test_the_model_cases_cover_what_the_model_can_be():
    """Each parameter that any configuration has is checked at least once."""
    checked = {name for case in MODEL_CASES for name in case.names}
    assert checked >= {"read/w", "writeW/b", "write/w", "start/c", "start/h_enc", "start/cell_enc", "start/cell_dec"}


@pytest.mark.parametrize("case", [c for c in OP_CASES if c.label.split(",")[0] in twins.TWINS], ids=lambda c: c.label)
def test_the_composed_twin_has_the_same_value_and_gradient(case, rng):
    twin, op = twins.TWINS[case.label.split(",")[0]]
    results = []
    for function in (twin, op):
        tensors = [Tensor(i) if name else i for i, name in zip(case.inputs, case.names, strict=True)]
        outputs = function(*tensors, **case.settings)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        weights = np.random.default_rng(3)
        loss = 0
        for output in outputs:
            loss = loss + elementary.sum(output * weights.standard_normal(output.shape))
        gradients = backward(loss, [t for t in tensors if isinstance(t, Tensor)])
        results.append([output.value for output in outputs] + gradients)
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize("case", [c for c in OP_CASES if c.op in PLAIN], ids=lambda case: case.label)
def test_the_plain_form_has_the_same_value_and_gradient(case, rng):
    """Where an op is faster than its derivation, the derivation stands beside it."""
    plain = PLAIN[case.op]
    (value, backward), (want, plain_backward) = (op(*case.inputs, **case.settings) for op in (case.op, plain))
    for got, wanted in zip(gradcheck.as_tuple(value), gradcheck.as_tuple(want), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-13, atol=1e-15)
    cotangents = [rng.standard_normal(output.shape) for output in gradcheck.as_tuple(value)]
    gradients, wanted = (gradcheck.as_tuple(b(*cotangents)) for b in (backward, plain_backward))
    for got, want in zip(map(dense, gradients), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12 * np.abs(want).max())


def test_every_op_has_a_twin_and_a_case():
    assert set(twins.TWINS) == set(ops.__all__)
    assert {case.label.split(",")[0] for case in OP_CASES} >= set(ops.__all__)


# The checker, checked


def softmax(scale):
    """The softmax of rows, with a backward that is `scale` times the right one."""

    def maths(a):
        y = np.exp(a)
        y /= y.sum(axis=1, keepdims=True)

        def back(dy):
            return scale * y * (dy - (dy * y).sum(axis=1, keepdims=True))

        return y, back

    return maths


@pytest.mark.parametrize("scale", [1.001, 0.999, 0, 7, -1, float("nan")])
def test_the_checker_rejects_a_wrong_softmax(scale, rng):
    (row,) = gradcheck.check(softmax(scale), [rng.standard_normal((3, 4))], ["a"], rng, "softmax")
    assert not row.passed
    assert not row.differences <= 1e-4 and not row.complex_step <= 1e-4


def test_the_checker_accepts_the_right_softmax(rng):
    (row,) = gradcheck.check(softmax(1), [rng.standard_normal((3, 4))], ["a"], rng, "softmax")
    assert row.passed


def test_ones_as_cotangents_would_have_accepted_the_zero():
    """Why cotangents are random: with all ones, the witness itself is zero."""
    f = softmax(1)
    a = np.random.default_rng(0).standard_normal((3, 4))
    want = gradcheck.complex_step(lambda a: (f(a)[0],), [a], 0, [np.ones((3, 4))])
    assert np.abs(want).max() < 1e-15


def wrong(gradients):
    return lambda a, b: (a * b, lambda dy: gradients(a, b, dy))


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        (lambda a, b, dy: (dy * b, None), "product: no gradient for b"),
        (lambda a, b, dy: (dy * b,), "1 gradients for 2 inputs"),
    ],
)
def test_the_checker_rejects_missing_gradients(gradients, message, rng):
    with pytest.raises(BadInput, match=message):
        gradcheck.check(wrong(gradients), [rng.random(3), rng.random(3)], ["a", "b"], rng, "product")


def test_the_checker_rejects_gradients_swapped_between_inputs(rng):
    rows = gradcheck.check(
        wrong(lambda a, b, dy: (dy * a, dy * b)), [rng.random(3), rng.random(3)], "ab", rng, "product"
    )
    assert not any(row.passed for row in rows)


def test_the_checker_rejects_a_wrong_shape(rng):
    (row,) = gradcheck.check(lambda a: (a * 1, lambda dy: dy[:2]), [rng.random(3)], ["a"], rng, "short")
    assert row.differences == float("inf")


def test_a_reference_of_zeros_checks_nothing(rng):
    with pytest.raises(BadInput, match="zero everywhere"):
        gradcheck.check(lambda a: (0 * a, lambda dy: 0 * dy), [rng.random(3)], ["a"], rng, "nothing")


def test_data_must_have_no_gradient(rng):
    with pytest.raises(BadInput, match="input 1 is data"):
        gradcheck.check(wrong(lambda a, b, dy: (dy * b, dy * a)), [rng.random(3), rng.random(3)], ["a", None], rng, "p")


@pytest.mark.slow
def test_no_mutant_of_a_backward_survives():
    """Every backward, changed in one place at a time: the checks notice, or the change is shown to be none."""
    from support import mutants

    assert mutants.survivors() == []
