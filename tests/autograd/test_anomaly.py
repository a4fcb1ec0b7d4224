"""detect_anomaly: the first NaN or Inf is named, with the user's line."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, ops
from tensorgrad.autograd import detect_anomaly
from tensorgrad.errors import AnomalyError


def test_forward() -> None:
    x = Tensor([1.0, -1.0, 4.0], requires_grad=True)

    def compute() -> None:
        y = ops.sqrt(x)
        ops.exp(y)

    with detect_anomaly(), np.errstate(invalid="ignore"), pytest.raises(AnomalyError) as caught:
        compute()
    text = str(caught.value)
    assert "sqrt gave the first NaN or Inf: 1 of 3 values are NaN" in text
    assert "shape (3,) float32, from -1 to 4" in text
    assert "test_anomaly.py" in text
    assert "y = ops.sqrt(x)" in text


def test_backward_names_the_forward_line() -> None:
    x = Tensor([0.0, 4.0], requires_grad=True)

    def compute() -> None:
        root = ops.sqrt(x)
        (root * 2.0).sum().backward()

    with detect_anomaly(), np.errstate(divide="ignore"), pytest.raises(AnomalyError) as caught:
        compute()
    text = str(caught.value)
    assert "gradient of sqrt with respect to x is the first" in text
    assert "1 of 2 values are infinite" in text
    assert "root = ops.sqrt(x)" in text
    assert "incoming gradient" in text


def test_recorded_backward_is_watched_too() -> None:
    x = Tensor([0.0, 4.0], requires_grad=True)
    with detect_anomaly(), np.errstate(divide="ignore"), pytest.raises(AnomalyError):
        ops.sqrt(x).sum().backward(create_graph=True)


def test_nothing_is_raised_for_sound_numbers_and_outside() -> None:
    x = Tensor([1.0, 4.0], requires_grad=True)
    with detect_anomaly():
        ops.sqrt(x).sum().backward()
    with np.errstate(invalid="ignore"):
        assert np.isnan(ops.log(Tensor(-1.0)).item())


def test_as_a_decorator() -> None:
    @detect_anomaly()
    def step() -> Tensor:
        with np.errstate(divide="ignore"):
            return tg.ops.log(Tensor([0.0]))

    with pytest.raises(AnomalyError, match="log gave"):
        step()
