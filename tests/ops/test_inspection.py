"""What the array API standard lets one ask of dtypes and of the library."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import dtypes
from tensorgrad.errors import DtypeError


@pytest.mark.parametrize("dtype", sorted(dtypes.ALL, key=str), ids=str)
def test_a_dtype_is_of_the_kinds_that_numpy_says(dtype: np.dtype[Any]) -> None:
    assert tg.isdtype(dtype, dtype)
    assert not tg.isdtype(dtype, ())
    for kind in (
        "bool", "signed integer", "unsigned integer", "integral", "real floating",
        "complex floating", "numeric",
    ):  # fmt: skip
        theirs = dtypes.float16 if dtype == dtypes.bfloat16 else dtype
        assert tg.isdtype(dtype, kind) is np.isdtype(theirs, kind)
        assert tg.isdtype(dtype, (kind, dtype))


def test_kinds_and_dtypes_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="a kind is one of"):
        tg.isdtype(tg.float32, "float")
    with pytest.raises(DtypeError):
        tg.isdtype("text", "bool")


@pytest.mark.parametrize("dtype", sorted(dtypes.FLOATS, key=str), ids=str)
@pytest.mark.filterwarnings("ignore:overflow")
def test_limits_of_floats(dtype: np.dtype[Any]) -> None:
    found = tg.finfo(dtype)
    assert found == tg.finfo(tg.ones(2, dtype=dtype)) == tg.finfo(str(dtype))
    assert found.dtype == dtype
    assert found.bits == 8 * dtype.itemsize
    assert [type(x) for x in found[:5]] == [int, float, float, float, float]
    assert (tg.asarray(found.max, dtype=dtype) + found.max).item() == math.inf
    assert found.min == -found.max
    one = np.ones((), dtype)
    assert one + dtype.type(found.eps) > one
    assert one + dtype.type(found.eps / 2) == one
    known: Any = ml_dtypes.finfo
    assert found.smallest_normal == float(known(dtype).tiny)
    with pytest.raises(DtypeError, match="ask finfo"):
        tg.iinfo(dtype)


@pytest.mark.parametrize("dtype", sorted(dtypes.INTEGERS, key=str), ids=str)
def test_limits_of_integers(dtype: np.dtype[Any]) -> None:
    found = tg.iinfo(dtype)
    assert found == tg.iinfo(tg.ones(2, dtype=dtype))
    assert found.dtype == dtype
    assert [type(x) for x in found[:3]] == [int, int, int]
    known: Any = np.iinfo(str(dtype))
    assert found[:3] == (known.bits, known.max, known.min)
    with pytest.raises(DtypeError, match="ask iinfo"):
        tg.finfo(dtype)


def test_result_types_are_those_of_the_results() -> None:
    x = tg.ones(2, dtype=tg.int8)
    assert tg.result_type(x, tg.float16) == tg.float16
    assert tg.result_type(tg.int8, tg.int32, np.ones(1, np.uint8)) == tg.int32
    assert tg.result_type(x, 1.0) == (x + 1.0).dtype == tg.float32
    assert tg.result_type(x, 1) == tg.int8
    assert tg.result_type(tg.float64, np.float32(1.0)) == tg.float64
    with pytest.raises(ValueError, match="at least one"):
        tg.result_type(1, 2.0)
    with pytest.raises(DtypeError, match="no common"):
        tg.result_type(tg.uint64, tg.int8)


def test_a_dtype_can_be_cast_to_what_it_is_promoted_to() -> None:
    assert tg.can_cast(tg.int8, tg.int16)
    assert tg.can_cast(tg.ones(2), "float64")
    assert tg.can_cast(tg.bool, tg.int8)
    assert not tg.can_cast(tg.float64, tg.float32)
    assert not tg.can_cast(tg.float32, tg.int32)
    assert not tg.can_cast(tg.uint64, tg.int8)


def test_astype_copies_unless_told_not_to_and_carries_gradients() -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    assert tg.astype(x, tg.float32, copy=False) is x
    assert tg.astype(x, tg.float32).data is not x.data
    tg.astype(x, tg.float64, device="cpu").sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == tg.float32
    assert x.grad.tolist() == [1.0, 1.0]
    assert tg.astype([1, 2], tg.float16).dtype == tg.float16


def test_what_the_library_offers() -> None:
    info = tg.__array_namespace_info__()
    assert info.capabilities() == {
        "boolean indexing": True,
        "data-dependent shapes": True,
        "max dimensions": 64,
    }
    assert info.default_device() in info.devices()
    for name, dtype in info.default_dtypes(device="cpu").items():
        kind = {"indexing": "integral"}.get(name, name)
        assert tg.isdtype(dtype, kind)
    assert info.default_dtypes()["real floating"] == tg.ones(1).dtype
    assert info.default_dtypes()["integral"] == tg.asarray(1).dtype
    assert info.dtypes(kind="integral") == {str(d): d for d in sorted(dtypes.INTEGERS, key=str)}
    assert set(info.dtypes()) <= set(vars(tg))
    assert set(info.dtypes(kind=("bool", "real floating"))) == {"bool", "float32", "float64"}
    assert tg.__array_api_version__ == "2025.12"
    assert tg.ones(1).__array_namespace__(api_version="2025.12") is tg
