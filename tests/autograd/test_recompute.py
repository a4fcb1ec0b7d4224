"""checkpoint: the same gradients with less stored."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, ops
from tensorgrad.autograd import checkpoint, grad
from tensorgrad.errors import GradientError

RNG = np.random.default_rng(4)


def leaf(*shape: int) -> Tensor:
    return Tensor(RNG.standard_normal(shape), requires_grad=True)


def block(x: Tensor, w: Tensor) -> Tensor:
    return ops.tanh(ops.exp(x @ w) * 0.1)


def test_same_gradients_for_arguments_and_captured_parameters() -> None:
    x, w, captured = leaf(3, 4), leaf(4, 4), leaf(4)

    def segment(a: Tensor) -> Tensor:
        return block(a, w) * captured

    (segment(segment(x)) * 2.0).sum().backward()
    wanted = [t.grad.numpy() for t in (x, w, captured) if t.grad is not None]
    for t in (x, w, captured):
        t.grad = None
    (checkpoint(segment, checkpoint(segment, x)) * 2.0).sum().backward()
    found = [t.grad.numpy() for t in (x, w, captured) if t.grad is not None]
    assert len(found) == 3
    for a, b in zip(wanted, found):
        np.testing.assert_array_equal(a, b)


def test_grad_with_respect_to_a_captured_parameter() -> None:
    x, w = leaf(3, 4), leaf(4, 4)
    (wanted,) = grad(block(x, w).sum(), w)
    (found,) = grad(checkpoint(lambda a: block(a, w), x).sum(), w)
    np.testing.assert_array_equal(wanted.numpy(), found.numpy())


def test_second_order() -> None:
    x = leaf(3)

    def segment(a: Tensor) -> Tensor:
        return ops.exp(a) * a

    def second(function: Callable[[Tensor], Tensor]) -> np.ndarray:
        (g,) = grad(function(x).sum(), x, create_graph=True)
        (h,) = grad((g * g).sum(), x)
        return h.numpy()

    np.testing.assert_allclose(
        second(lambda a: checkpoint(segment, a)), second(segment), rtol=1e-14
    )


def test_several_outputs_and_keyword_arguments() -> None:
    x = leaf(3)

    def segment(a: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        return a * a * scale, ops.exp(a)

    a, b = checkpoint(segment, x, scale=3.0)
    (a + b).sum().backward()
    values = x.detach().numpy()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 6 * values + np.exp(values))


def test_only_one_of_several_outputs_is_used() -> None:
    x = leaf(3)
    _, b = checkpoint(lambda a: (a * 2.0, a * a), x)
    b.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy())


def test_dropout_draws_the_same_mask_again() -> None:
    x = leaf(1000)
    out = checkpoint(lambda a: ops.dropout(a, 0.5), x)
    before = ops.random.default_generator.state()
    out.sum().backward()
    assert x.grad is not None
    kept = out.numpy() if not out.requires_grad else out.detach().numpy()
    np.testing.assert_array_equal(x.grad.numpy() != 0, kept != 0)
    assert ops.random.default_generator.state() == before


def test_what_happens_inside_is_not_stored() -> None:
    kept: list[weakref.ref[np.ndarray]] = []

    def segment(a: Tensor) -> Tensor:
        inner = ops.exp(a)
        kept.append(weakref.ref(inner.data))
        return inner * inner

    gc.disable()
    try:
        out = checkpoint(segment, leaf(10))
        assert kept[0]() is None
        stored = segment(leaf(10))
        assert kept[1]() is not None
        del out, stored
    finally:
        gc.enable()


def test_backward_twice_needs_retain_graph_and_works_with_it() -> None:
    x = leaf(3)
    y = checkpoint(lambda a: a * a, x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 4 * x.detach().numpy())
    with pytest.raises(GradientError, match="retain_graph"):
        y.backward()


def test_overwritten_input_is_detected() -> None:
    x = Tensor(RNG.standard_normal(3))
    w = leaf(3)
    y = checkpoint(lambda a: a * w, x)
    x[0] = 7.0
    with pytest.raises(GradientError, match="checkpoint: an input of shape"):
        y.sum().backward()


def test_no_tape_without_recording_and_a_clear_error_for_other_results() -> None:
    x = leaf(3)
    with tg.no_grad():
        assert not checkpoint(lambda a: a * 2.0, x).requires_grad
    with pytest.raises(TypeError, match="must return tensors"):
        checkpoint(lambda a: "text", x)
