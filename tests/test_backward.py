"""What the backward pass may skip on its fast path, and must not: chains, leaves, sums, 16 bits."""

from __future__ import annotations

import weakref
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import custom_operation, grad
from tensorgrad.errors import GradientError


def leaf(values: object, dtype: object = np.float64) -> Tensor:
    return Tensor(values, dtype=dtype, requires_grad=True)


# --- chains, which need neither heap nor dicts ----------------------------------------------------


def test_a_chain_frees_what_it_saved() -> None:
    x = leaf([0.5])
    middle = tg.exp(tg.exp(x))
    saved = weakref.ref(middle.data)
    y = tg.exp(middle).sum()
    del middle
    y.backward()
    assert saved() is None


def test_a_retained_chain_frees_nothing() -> None:
    x = leaf([0.5, 0.25])
    y = tg.tanh(tg.exp(tg.sin(x))).sum()
    y.backward(retain_graph=True)
    assert x.grad is not None
    once = host(x.grad).copy()
    y.backward()
    np.testing.assert_array_equal(host(x.grad), 2 * once)


def test_hooks_in_the_middle_of_a_chain() -> None:
    x = leaf([0.5])
    first = tg.sin(x)
    second = tg.exp(first)
    seen: list[float] = []
    second.register_hook(lambda g: seen.append(g.item()))
    second.register_hook(lambda g: g * 10)
    tg.square(second * 1.5).sum().backward()
    wanted = 2 * 1.5**2 * second.item()
    assert seen == [pytest.approx(wanted)]
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(10 * wanted * second.item() * np.cos(0.5))


def test_kept_gradients_in_the_middle_of_a_chain() -> None:
    x = leaf([0.5])
    middle = tg.exp(tg.sin(x)).retain_grad()
    tg.square(middle * 1.5).sum().backward()
    assert middle.grad is not None
    assert middle.grad.item() == pytest.approx(2 * 1.5**2 * middle.item())


def test_overwriting_in_the_middle_of_a_chain_is_detected() -> None:
    x = leaf([0.5])
    middle = tg.exp(tg.sin(x))
    y = tg.exp(tg.tanh(middle)).sum()
    with tg.no_grad():
        middle += 1.0
    with pytest.raises(GradientError, match="overwritten"):
        y.backward()
    assert x.grad is None


def test_a_value_is_visited_when_its_gradient_is_complete() -> None:
    """A chain beside others: nobody may run ahead while a consumer of the value is waiting."""
    x = leaf([0.5])
    shared = tg.sin(x)
    early = shared * 3.0
    late = tg.exp(tg.exp(shared))
    (late + early * early).sum().backward()
    s = np.sin(0.5)
    wanted = (np.exp(np.exp(s)) * np.exp(s) + 18 * s) * np.cos(0.5)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(wanted)


# --- leaves ---------------------------------------------------------------------------------------


def test_an_error_after_a_leaf_was_reached_leaves_it_alone() -> None:
    x, other = leaf([0.5]), leaf([2.0])
    y = tg.sin(x)

    def refuse(g: Tensor) -> None:
        raise RuntimeError("no")

    remove = y.register_hook(refuse)
    other.grad = Tensor([7.0], dtype=np.float64)
    z = (tg.exp(y) * x + other * x).sum()  # both leaves are reached before y is
    with pytest.raises(RuntimeError, match="no"):
        z.backward(retain_graph=True)
    assert x.grad is None
    assert other.grad.tolist() == [7.0]
    remove()
    z.backward()
    assert other.grad.tolist() == [7.5]


def test_gradients_of_interior_values_are_the_callers_own() -> None:
    x = leaf([1.0, 2.0])
    a, b = x * 2, x * 3
    found = grad((a + b).sum(), [a, b])
    assert not np.shares_memory(found[0].data, found[1].data)
    found[0].data[...] = 7.0
    assert found[1].tolist() == [1, 1]


def test_gradients_do_not_alias_saved_values() -> None:
    """A rule that gives what was saved gives memory that is somebody else's."""
    linear_in_x = custom_operation(
        lambda xp, x, y: xp.sum(x * y), x=lambda g, y: y, y=lambda g, x: x
    )
    x, y = leaf([1.0, 2.0]), Tensor([3.0, 4.0], dtype=np.float64)
    linear_in_x(x, y).backward()
    assert x.grad is not None
    x.grad.data[...] = 0.0
    assert y.tolist() == [3, 4]


def test_sums_over_repeated_axes_of_any_place() -> None:
    """The axes that were added in front, and those of size 1 behind them, in one gradient."""
    x = leaf(np.arange(3.0).reshape(3, 1))
    g = np.arange(24.0).reshape(2, 3, 4)
    (x * Tensor(g)).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(host(x.grad), g.sum(axis=(0, 2)).reshape(3, 1))
    y = leaf(np.arange(4.0).reshape(1, 4))
    (y + Tensor(g)).backward(Tensor(g))
    assert y.grad is not None
    np.testing.assert_array_equal(host(y.grad), g.sum(axis=(0, 1)).reshape(1, 4))


# --- 16 bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [tg.float16, tg.bfloat16])
def test_rules_on_16_bits_round_once(half: np.dtype[Any]) -> None:
    """The rule of tanh, g (1 - y y), loses most digits where y is near 1 if y y is rounded."""
    x = leaf(np.linspace(-3, 3, 101), half)
    g = Tensor(np.linspace(0.1, 2, 101), dtype=half)
    y = tg.tanh(x)
    y.backward(g)
    wide_y, wide_g = (host(t).astype(np.float64) for t in (y, g))
    assert x.grad is not None
    assert x.grad.dtype == half
    bit = float(ml_dtypes.finfo(half).eps)  # type: ignore[no-untyped-call]
    found = host(x.grad).astype(np.float64)
    np.testing.assert_allclose(found, wide_g * (1 - wide_y * wide_y), rtol=bit)
