"""What the array API standard says beyond NumPy, and arguments that it names."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import ShapeError

INF, NAN = math.inf, math.nan
FLOATS = ["float16", "bfloat16", "float32", "float64"]
SPECIAL = [0.0, -0.0, 1.0, -1.5, 3.0, INF, -INF, NAN]
PAIRS = np.array([(a, b) for a in SPECIAL for b in SPECIAL]).T


def bits(x: Any) -> Any:
    """Numbers as they are told apart: by sign and value, and NaN by being one."""
    a = np.asarray(x).astype(np.float64)
    return [(bool(np.signbit(v)), float(v)) if v == v else "NaN" for v in a.reshape(-1)]


@pytest.mark.parametrize("dtype", FLOATS)
def test_signs_and_neighbours(dtype: str) -> None:
    a, b = (tg.tensor(side, dtype=dtype) for side in PAIRS)
    assert bits(tg.copysign(a, b).numpy()) == bits(np.copysign(*PAIRS))
    assert tg.copysign(a, b).dtype == a.dtype
    assert tg.signbit(b).tolist() == np.signbit(PAIRS[1]).tolist()
    found = tg.nextafter(a, b)
    assert found.dtype == a.dtype
    assert bits(found.numpy()) == bits(np.nextafter(a.data, b.data))
    eps = float(ml_dtypes.finfo(a.dtype).eps)  # type: ignore[no-untyped-call]
    assert tg.nextafter(tg.ones(1, dtype=dtype), 2.0).item() == 1 + eps


def test_the_sign_that_is_copied_turns_gradients_too() -> None:
    x = tg.tensor([2.0, -3.0, 0.0], requires_grad=True)
    y = tg.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    tg.copysign(x, y).backward(tg.ones(3))
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.tolist() == [-1.0, 1.0, 0.0]
    assert y.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:invalid", "ignore:divide")
def test_quotients_of_one_infinity_are_not_rounded(dtype: str, compiled: bool) -> None:
    """Where NumPy has NaN, or -1; everything else is as there."""
    a, b = (tg.tensor(side, dtype=dtype) for side in PAIRS)
    with np.errstate(all="ignore"):
        one = (np.isinf(PAIRS[0]) != np.isinf(PAIRS[1])) & (PAIRS[1] != 0)
        wanted = np.where(one, PAIRS[0] / PAIRS[1], np.floor_divide(*PAIRS))
    function = tg.compile(tg.floor_divide) if compiled else tg.floor_divide
    assert bits(function(a, b).numpy()) == bits(wanted)
    assert bits((a // b).numpy()) == bits(wanted)
    assert bits((a // -INF).numpy()) == bits(tg.floor_divide(a, tg.full_like(a, -INF)).numpy())


def test_the_different_elements() -> None:
    for data in (
        np.array([[3.0, 1.0], [1.0, -2.0]]), np.array([2, 0, 2]), np.array([True, False, True]),
        np.array([]), np.array(4.0), np.array([1 + 2j, 1 - 1j, 1 + 2j]),
    ):  # fmt: skip
        x = tg.tensor(data)
        for name in ("unique_all", "unique_counts", "unique_inverse"):
            found, wanted = getattr(tg, name)(x), getattr(np, name)(data)
            assert found._fields == wanted._fields
            for y, z in zip(found, wanted, strict=True):
                assert y.shape == z.shape
                np.testing.assert_array_equal(y.numpy(), z)
        np.testing.assert_array_equal(tg.unique_values(x).numpy(), np.unique_values(data))
    x = tg.tensor([NAN, 1.0, NAN], dtype="float16")
    assert tg.unique_all(x).counts.tolist() == [1, 1, 1]
    assert tg.unique_values(x).shape == (3,)
    assert tg.unique_all(x).values.dtype == tg.float16
    assert np.unique(x).shape == (2,)


def test_what_is_among_others() -> None:
    x, others = tg.tensor([1.0, NAN, 2.0, -0.0]), tg.tensor([2, 0])
    assert tg.isin(x, others).tolist() == [False, False, True, True]
    assert tg.isin(x, others, invert=True).tolist() == [True, True, False, False]
    assert tg.isin(x, x).tolist() == [True, False, True, True]
    assert tg.isin(x, 2.0).tolist() == [False, False, True, False]
    assert tg.isin(3, others).item() is False
    found: Any = np.isin(x, others)
    assert isinstance(found, Tensor)


def test_reshape_copies_as_it_is_told() -> None:
    x = tg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    assert np.shares_memory(tg.reshape(x, (3, 2), copy=False).data, x.data)
    assert not np.shares_memory(x.reshape(6, copy=True).data, x.data)
    assert not np.shares_memory(tg.reshape(x.T, (6,), copy=True).data, x.data)
    x.reshape((6,), copy=True).backward(tg.ones(6, dtype=tg.float64))
    assert x.grad is not None
    with pytest.raises(ValueError, match="copy=False"):
        tg.reshape(x.T, (6,), copy=False)


def test_shapes_broadcast_as_numpy_has_it() -> None:
    assert tg.broadcast_shapes() == ()
    assert tg.broadcast_shapes((2, 1), 3, [1]) == np.broadcast_shapes((2, 1), 3, (1,))
    with pytest.raises(ShapeError, match=r"broadcast_shapes: .*\(2,\) and \(3,\)"):
        tg.broadcast_shapes((2,), (3,))


def test_an_axis_that_is_not_there_is_an_index_error_too() -> None:
    for error in (IndexError, ValueError, ShapeError):
        with pytest.raises(error, match="axis must be"):
            tg.expand_dims(tg.ones(2), axis=3)


def test_devices_and_exchange() -> None:
    x = tg.ones(3)
    assert x.to_device("cpu") is x
    with pytest.raises(ValueError, match="current stream"):
        x.to_device("cpu", stream=1)  # type: ignore[arg-type]
    shared = np.from_dlpack(x)
    assert np.shares_memory(shared, x.data)
    capsule = x.__dlpack__(max_version=(1, 0), dl_device=(1, 0), copy=True)
    assert "dltensor" in repr(capsule)
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(2, 0))


def test_large_integers_in_sequences() -> None:
    big = 2**63 + 1
    assert tg.asarray([big, 1], dtype=tg.uint64).tolist() == [big, 1]
    assert tg.tensor([[big], [2]], dtype="uint64").tolist() == [[big], [2]]
    assert tg.tensor([1.5, 2.0], dtype="uint64").tolist() == [1, 2]


def test_sorters_and_products_of_small_integers() -> None:
    x = tg.tensor([2.0, 0.0, 1.0])
    assert tg.searchsorted(x, tg.tensor([0.5, 2.5]), sorter=tg.argsort(x)).tolist() == [1, 3]
    found: Any = np.searchsorted(x, tg.tensor([0.5]), sorter=tg.argsort(x))
    assert found.tolist() == [1]
    small = tg.tensor([200, 100], dtype="uint8")
    assert tg.vecdot(small, small).dtype == tg.uint8
    assert tg.vecdot(small, small).item() == (200 * 200 + 100 * 100) % 256


def test_special_complex_numbers_of_the_standard() -> None:
    found = tg.expm1(tg.tensor([complex(-0.0, 0.0), complex(INF, 0), complex(-INF, NAN)]))
    assert bits(found.numpy().real) == bits([0.0, INF, -1.0])
    assert bits(found.numpy().imag) == bits([0.0, 0.0, 0.0])
    found = tg.tanh(tg.tensor([complex(INF, 2.0), complex(-INF, 2.0), complex(INF, -2.0), 0.5j]))
    assert bits(found.numpy().real) == bits([1.0, -1.0, 1.0, 0.0])
    assert bits(found.numpy().imag[:3]) == bits([0.0, 0.0, -0.0])
    assert bits(tg.sign(tg.tensor(complex(-0.0, -0.0))).numpy().real) == bits(0.0)
