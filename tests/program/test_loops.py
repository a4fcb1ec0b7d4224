"""What loops in C compute, against NumPy: special values, whole numbers, parts of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor

pytestmark = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

Array = np.ndarray[Any, Any]


def replayed(function: Callable[..., Any], *arrays: Array) -> list[tuple[Array, Array]]:
    """What a program without calls gives, each beside what eager mode gives."""
    tensors = [Tensor(a, dtype=a.dtype) for a in arrays]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captured = Captured(function, tensors)
        wanted = [t.data for t in function(*tensors)]
    calls = [line for line in captured.executor.lines() if line.startswith("call")]
    assert not calls
    return list(zip(captured(*tensors), wanted, strict=True))


SPECIAL = [
    0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, 7.0, -7.0, 5.5, 1e30, -1e30, 1e38,
    1e-30, 1e-40, -1e-40, np.inf, -np.inf, np.nan,
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_division_with_rest_is_numpys_for_all_signs_zeros_infinities_and_nan(dtype: str) -> None:
    numbers = np.array(SPECIAL).astype(dtype)
    names = ("floor_divide", "remainder", "logaddexp")
    found = replayed(
        lambda x, y: [getattr(tg, name)(x, y) for name in names],
        np.repeat(numbers, numbers.size),
        np.tile(numbers, numbers.size),
    )
    for name, (a, b) in zip(names, found, strict=True):
        exact = {"rtol": 1e-6} if name == "logaddexp" else {"rtol": 0}
        np.testing.assert_allclose(a, b, err_msg=name, atol=0, **exact)
        zero = b == 0
        np.testing.assert_array_equal(np.signbit(a[zero]), np.signbit(b[zero]), err_msg=name)


WHOLE = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
BINARY = [
    "add", "subtract", "multiply", "floor_divide", "remainder", "maximum", "minimum",
    "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift",
    "less", "equal",
]  # fmt: skip
UNARY = ["abs", "sign", "negative", "square", "bitwise_invert"]


@pytest.mark.parametrize("dtype", WHOLE)
def test_integers_wrap_around_as_numpys_do_and_division_by_zero_gives_zero(dtype: str) -> None:
    limits = np.iinfo(dtype)
    wanted = [0, 1, 2, 3, 5, 7, 8, 10, 31, 32, 63, 64, 100, -1, -2, -3, -7]
    wanted += [limits.min, limits.min + 1, limits.max, limits.max - 1]
    numbers = np.array(sorted({n for n in wanted if limits.min <= n <= limits.max}), dtype)
    found = replayed(
        lambda x, y: [
            *[getattr(tg, name)(x, y) for name in BINARY],
            *[getattr(tg, name)(x) for name in UNARY],
        ],
        np.repeat(numbers, numbers.size),
        np.tile(numbers, numbers.size),
    )
    for name, (a, b) in zip([*BINARY, *UNARY], found, strict=True):
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a, b, err_msg=f"{name} of {dtype}")
