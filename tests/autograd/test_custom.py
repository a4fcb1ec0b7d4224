"""Operations of the user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, ops
from tensorgrad.autograd import custom_operation, gradcheck, gradgradcheck


@custom_operation(x=lambda g, x: g * 3.0 * x**2)
def cube(x: Any) -> Any:
    """The third power."""
    return x**3


@custom_operation(
    a=lambda g, b, scale: g * b * scale, b=lambda g, a, scale: g * a * scale, index=None
)
def gated(xp: Any, a: Any, b: Any, index: Any, *, scale: float = 2.0) -> Any:
    return xp.multiply(a, b) * scale + 0 * index


def leaf(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(1).standard_normal(shape), requires_grad=True)


def test_value_and_gradients_to_second_order() -> None:
    x = leaf(3, 4)
    np.testing.assert_allclose(cube(x).detach().numpy(), x.detach().numpy() ** 3)
    assert gradcheck(cube, x)
    assert gradgradcheck(cube, x)


def test_options_and_inputs_without_a_gradient() -> None:
    a, b = leaf(3, 4), leaf(4)
    index = Tensor([1, 2, 3, 4])
    out = gated(a, b, index, scale=3.0)
    np.testing.assert_allclose(out.detach().numpy(), 3 * a.detach().numpy() * b.detach().numpy())
    assert gradcheck(lambda p, q: gated(p, q, index), (a, b))
    assert gradgradcheck(lambda p, q: gated(p, q, index, scale=-1.0), (a, b))


def test_it_saves_only_what_its_rules_name() -> None:
    import weakref

    doubled = custom_operation(lambda x: x * 2, x=lambda g: g * 2)
    h = ops.exp(leaf(5)) * 1.0
    held = weakref.ref(h.data)
    y = doubled(h)
    del h
    assert held() is None
    y.sum().backward()


def test_keeps_name_documentation_and_signature() -> None:
    import inspect

    assert cube.__name__ == "cube"
    assert cube.__doc__ == "The third power."
    assert list(inspect.signature(gated).parameters) == ["a", "b", "index", "scale"]


def test_a_float64_gradient_is_cast_back() -> None:
    widening = custom_operation(lambda x: x * 1, x=lambda g: np.float64(2.0) * g.astype(np.float64))
    x = Tensor([1.0, 2.0], requires_grad=True)
    widening(x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == tg.float32


def test_mistakes_are_explained() -> None:
    with pytest.raises(TypeError, match="asks for z"):
        custom_operation(lambda x: x, x=lambda g, z: g)
    with pytest.raises(TypeError, match="got rules for q"):
        custom_operation(lambda x: x, q=lambda g: g)
    with pytest.raises(TypeError, match="got rules for none of them"):
        custom_operation(lambda x: x)
    wrong = custom_operation(lambda x: x * 1, x=lambda g: g.astype(np.int64))
    with pytest.raises(TypeError, match="must return a floating array"):
        wrong(leaf(2)).sum().backward()
    misshaped = custom_operation(lambda x: x * 1, x=lambda g: g[:1])
    with pytest.raises(ValueError, match="shape"):
        misshaped(leaf(3)).sum().backward()
