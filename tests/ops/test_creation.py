"""Dtypes of what is made and selected, and operations on no elements at all."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor

#: The numbers that where() selects from, and the dtype of the result.
SELECTED: list[tuple[Any, Any, str]] = [
    (1.0, 0.0, "default"),
    (1.0, 0, "default"),
    (1, 0, "int64"),
    (True, False, "bool"),
    (True, 2, "int64"),
    (np.float64(1.0), 0.0, "default"),
    (float("nan"), 0, "default"),
    (2**40, 0, "int64"),
]


@pytest.mark.parametrize("default", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(("one", "other", "dtype"), SELECTED)
def test_where_of_two_numbers(one: Any, other: Any, dtype: str, default: str) -> None:
    """The default real dtype: what follows is not turned into float64."""
    tg.set_default_dtype(default)
    try:
        wanted = default if dtype == "default" else dtype
        for condition in (Tensor([True, False]), Tensor([1, 0]), Tensor([1.0, 0.0])):
            y = tg.where(condition, one, other)
            assert str(y.dtype) == wanted
            np.testing.assert_array_equal(
                y.numpy().astype(np.float64), np.array([one, other], np.float64)
            )
        assert str(np.where(Tensor([True]), one, other).dtype) == wanted
    finally:
        tg.set_default_dtype("float32")


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(("one", "other"), [(1.0, 0.0), (1, 0), (2.5, -1)])
def test_where_of_two_numbers_in_programs(one: Any, other: Any, executor: str) -> None:
    def f(x: Tensor) -> Tensor:
        return tg.where(x > 0, one, other)

    x = Tensor([1.0, -1.0, 2.0])
    call = tg.compile(f, executor=executor)
    for _ in range(3):
        assert call(x).dtype == f(x).dtype
        assert call(x).tolist() == f(x).tolist()
    mixed = tg.compile(lambda x: f(x) * x, executor=executor)
    assert mixed(x).dtype == tg.float32


def test_clip_and_others_of_numbers_alone() -> None:
    """No operation of numbers gives float64 by itself."""
    for y in (
        tg.clip(1.0, 0.0, 0.5), tg.maximum(1.0, 2.0), tg.hypot(3, 4), tg.exp(1), tg.atan2(1, 2.0),
        tg.logaddexp(0, 1), tg.where(True, 1.0, 0.0), tg.sum([1.0, 2.0]), tg.mean([1, 2]),
    ):  # fmt: skip
        assert y.dtype == tg.float32


@pytest.mark.parametrize("start", [0, 0.0, Tensor(0.0), np.float32(0)])
@pytest.mark.parametrize("stop", [1, 1.0, Tensor(1), np.float64(1)])
def test_linspace_from_tensors(start: Any, stop: Any) -> None:
    y = tg.linspace(start, stop, 5)
    assert y.dtype == tg.float32
    assert y.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_linspace_of_integers_is_rounded_down() -> None:
    """As NumPy has it, for negative numbers too."""
    for start, stop in ((0, -3), (-2.5, 2.5)):
        right = np.linspace(start, stop, 7, dtype=np.int64)
        assert tg.linspace(start, stop, 7, dtype=tg.int64).tolist() == right.tolist()


@pytest.mark.parametrize("dtype", sorted(map(str, tg.dtypes.ALL)))
def test_copies(dtype: str) -> None:
    x = tg.ones(3, dtype=dtype)
    for y in (tg.asarray(x, copy=True), x.clone(), copy.copy(x), copy.deepcopy(x)):
        assert y.dtype == x.dtype
        assert y.tolist() == x.tolist()
        assert not np.shares_memory(y.data, x.data)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_copies_of_truth_values_in_programs(executor: str) -> None:
    call = tg.compile(lambda x: ((x > 0).clone(), x.clone()), executor=executor)
    for _ in range(3):
        found, y = call(Tensor([1.0, -1.0]))
        assert found.tolist() == [True, False]
        assert y.tolist() == [1, -1]


# --- reductions with a dtype ----------------------------------------------------------------------

REDUCTIONS: dict[str, Any] = {
    "sum": np.sum,
    "prod": np.prod,
    "cumulative_sum": np.cumsum,
    "cumulative_prod": np.cumprod,
}


@pytest.mark.parametrize("executor", ["eager", *EXECUTORS])
@pytest.mark.parametrize("wanted", ["bool", "uint8", "int8", "int32", "int64", "float32"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64"])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_the_dtype_that_is_asked_for_is_that_of_the_result(
    name: str, dtype: str, wanted: str, executor: str
) -> None:
    """And integers wrap around in it, as NumPy's do."""
    values = np.array([100, 27, 3, 200], np.int64).astype(dtype)
    right = REDUCTIONS[name](values, dtype=wanted)

    def f(x: Tensor) -> Tensor:
        found: Tensor = getattr(tg, name)(x, dtype=wanted)
        return found

    call = f if executor == "eager" else tg.compile(f, executor=executor)
    y = call(Tensor(values))
    assert str(y.dtype) == wanted
    np.testing.assert_allclose(y.numpy(), right, rtol=1e-6)


def test_a_dtype_and_an_initial_element() -> None:
    y = tg.cumulative_sum(Tensor([200, 100], dtype=tg.uint8), dtype=tg.uint8, include_initial=True)
    assert y.dtype == tg.uint8
    assert y.tolist() == [0, 200, 44]


def test_the_gradient_of_a_sum_with_a_dtype() -> None:
    x = Tensor([1.0, 2.0], dtype=tg.float16, requires_grad=True)
    y = tg.sum(x, dtype=tg.float64)
    assert y.dtype == tg.float64
    y.backward()
    assert x.grad is not None
    assert x.grad.dtype == tg.float16
    assert x.grad.tolist() == [1, 1]


# --- of nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "repeats", "axis", "shape"),
    [
        (tg.zeros(0), 2, None, (0,)),
        (tg.zeros(0), [], None, (0,)),
        (tg.zeros(0), Tensor([], dtype=tg.int64), None, (0,)),
        (tg.zeros((0, 3)), [], 0, (0, 3)),
        (tg.zeros((0, 3)), [1, 0, 2], 1, (0, 3)),
        (tg.zeros((0, 3)), 2, 1, (0, 6)),
        (tg.ones(2), 0, None, (0,)),
        (tg.ones(2), [0, 0], None, (0,)),
    ],
)
def test_repeat_of_nothing(x: Tensor, repeats: Any, axis: int | None, shape: Any) -> None:
    assert tg.repeat(x, repeats, axis=axis).shape == shape


def test_repeats_that_do_not_fit() -> None:
    with pytest.raises(tg.errors.ShapeError, match=r"repeats must be one number or 2"):
        tg.repeat(tg.ones(2), [])
    for repeats in ([0.5, 1.0], -1, [1, -1], ["a"]):
        with pytest.raises(ValueError, match="repeats must be integers from 0"):
            tg.repeat(tg.ones(2), repeats)


# --- a value that is overwritten and then differentiated ------------------------------------------


@pytest.mark.parametrize("executor", ["eager", *EXECUTORS])
@pytest.mark.parametrize("index", [..., slice(None), (..., slice(None))])
@pytest.mark.parametrize("value", [5.0, 5, [5.0, 5.0, 5.0]])
def test_all_elements_overwritten_then_backward(index: Any, value: Any, executor: str) -> None:
    """The gradient flows to what is put in, and none to what was there."""
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)

    def step(factor: Tensor) -> Tensor:
        x.grad = None
        y = x * factor
        y[index] = value
        loss = (y * x).sum()
        loss.backward()
        return loss.detach()

    call = step if executor == "eager" else tg.compile(step, executor=executor)
    for n in (1.0, 2.0):
        assert call(Tensor(n)).item() == 30
        assert x.grad is not None
        assert x.grad.tolist() == [5, 5, 5]
