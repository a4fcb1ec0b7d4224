"""gradcheck and gradgradcheck: they pass what is right, and name what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, ops
from tensorgrad.autograd import custom_operation, gradcheck, gradgradcheck
from tensorgrad.errors import GradientError


def leaf(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(2).standard_normal(shape), requires_grad=True)


@custom_operation(x=lambda g, x: g * 2.001 * x)
def slightly_wrong(x: Any) -> Any:
    return x * x


def test_right_gradients_pass() -> None:
    assert gradcheck(lambda a, b: ops.tanh(a @ b), (leaf(3, 4), leaf(4, 2)))
    assert gradgradcheck(lambda a, b: ops.tanh(a @ b), (leaf(3, 4), leaf(4, 2)))
    assert gradcheck(lambda a: (a * 2.0, ops.exp(a)), leaf(3))


def test_a_wrong_gradient_is_reported_with_the_worst_entry() -> None:
    x = Tensor(np.array([1.0, 100.0, 3.0]), requires_grad=True)
    with pytest.raises(GradientError, match=r"3 of 3 entries .* worst is input 0 at \(1,\)"):
        gradcheck(slightly_wrong, x, rtol=1e-6)
    assert not gradcheck(slightly_wrong, x, rtol=1e-6, raise_exception=False)


def test_a_wrong_second_gradient_is_found() -> None:
    x = leaf(3)

    def frozen_slope(a: Tensor) -> Tensor:
        return a.detach() * a * 2.0 - (a * a).detach()

    with pytest.raises(GradientError, match="gradcheck"):
        gradgradcheck(frozen_slope, x)


def test_a_kink_accepts_anything_between_the_one_sided_derivatives() -> None:
    at_kink = Tensor(np.array([0.0, 1.0, -1.0]), requires_grad=True)
    assert gradcheck(ops.relu, at_kink)
    assert gradcheck(ops.abs, at_kink)
    outside = custom_operation(
        lambda x: np.maximum(x, 0), x=lambda g, x: g * (x > 0) + g * 5.0 * (x == 0)
    )
    with pytest.raises(GradientError, match=r"input 0 at \(0,\)"):
        gradcheck(outside, at_kink)


def test_inputs_that_cannot_be_checked_are_refused() -> None:
    with pytest.raises(ValueError, match="differences need float64"):
        gradcheck(ops.exp, Tensor([1.0], requires_grad=True))
    with pytest.raises(ValueError, match="nothing to check"):
        gradcheck(ops.exp, Tensor(np.ones(2)))
