"""Tests of the error function on NumPy: accuracy in ulp, special values, shapes, warnings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tensorgrad.ops import special

DTYPES = (np.float32, np.float64)


def exact(x: Any) -> Any:
    """math.erf of every element, as float64."""
    return np.array([math.erf(value) for value in x.tolist()], dtype=np.float64)


def single_ulps(x: Any) -> float:
    """Largest error of erf on float32 x, in ulp of the correctly rounded result."""
    expected = exact(x)
    spacing = np.spacing(np.abs(expected.astype(np.float32))).astype(np.float64)
    # Below 1 the spacing is half of what numpy.spacing reports at 1.
    spacing = np.where(np.abs(expected) < 1, np.minimum(spacing, 2.0**-24), 2.0**-24)
    return float(np.max(np.abs(special.erf(np, x).astype(np.float64) - expected) / spacing))


def double_ulps(x: Any) -> float:
    """Largest error of erf on float64 x, in ulp of the exact result."""
    worst = 0.0
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    with mpmath.workprec(160):
        for value, got in zip(x.tolist(), special.erf(np, x).tolist(), strict=True):
            expected = mpmath.erf(mpmath.mpf(value))
            ulp = min(math.ulp(float(expected)), 2.0**-53)
            worst = max(worst, float(abs(mpmath.mpf(got) - expected) / ulp))
    return worst


RANGES = [(0.0, 0.3), (0.3, 0.9), (0.9, 1.1), (1.1, 2.0), (2.0, 4.0), (4.0, 7.0), (7.0, 1e3)]


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_float32_accuracy(low: float, high: float) -> None:
    x = np.linspace(low, high, 50_001).astype(np.float32)
    assert single_ulps(x) <= 0.6
    assert single_ulps(-x) <= 0.6


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_float64_accuracy(low: float, high: float) -> None:
    assert double_ulps(np.linspace(low, high, 3001)) <= 1.5


def test_accuracy_where_the_formulas_meet() -> None:
    assert double_ulps(1.0 + np.arange(-1000, 1000) * 2.0**-53) <= 1.5


@pytest.mark.parametrize(
    ("dtype", "ulps", "least"), [(np.float32, single_ulps, -45), (np.float64, double_ulps, -323)]
)
def test_accuracy_of_tiny_arguments(dtype: Any, ulps: Any, least: int) -> None:
    x = np.logspace(least, -1, 3001).astype(dtype)
    subnormal = np.arange(1, 1001) * np.finfo(dtype).smallest_subnormal
    assert ulps(np.concatenate([x, subnormal.astype(dtype)])) <= 1.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_close_to_math_erf_on_a_dense_grid(dtype: Any) -> None:
    x = np.linspace(-6.5, 6.5, 130_001).astype(dtype)
    # math.erf is itself within 1 ulp in float64.
    np.testing.assert_array_max_ulp(special.erf(np, x), exact(x).astype(dtype), maxulp=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype: Any) -> None:
    largest = np.finfo(dtype).max
    x = np.array([np.inf, -np.inf, largest, -largest, 6.0, -6.0], dtype=dtype)
    np.testing.assert_array_equal(special.erf(np, x), np.array([1, -1] * 3, dtype=dtype))
    zeros = special.erf(np, np.array([0.0, -0.0], dtype=dtype))
    assert zeros.tolist() == [0.0, 0.0]
    assert np.signbit(zeros).tolist() == [False, True]
    assert np.isnan(special.erf(np, np.array([np.nan, 1.0], dtype=dtype))).tolist() == [True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_and_bounded(dtype: Any) -> None:
    x = np.concatenate([np.linspace(0, 7, 20_011), np.logspace(-40, 30, 1001)]).astype(dtype)
    y = special.erf(np, x)
    np.testing.assert_array_equal(special.erf(np, -x), -y)
    assert y.min() >= 0.0
    assert y.max() == 1.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_floating_point_flag_escapes(dtype: Any) -> None:
    info = np.finfo(dtype)
    signalling = {np.float32: (np.uint32, 0x7FA00000), np.float64: (np.uint64, 0x7FF4 << 48)}[dtype]
    edge = [np.inf, -np.inf, np.nan, 0.0, -0.0, info.max, info.min, info.tiny, 1.0]
    x = np.array([*edge, info.smallest_subnormal, -info.smallest_subnormal], dtype=dtype)
    x = np.concatenate([x, np.array([signalling[1]], dtype=signalling[0]).view(dtype)])
    with np.errstate(all="raise"):
        special.erf(np, x)
        for i in range(x.size):
            special.erf(np, x[i : i + 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_and_layouts(dtype: Any) -> None:
    base = np.linspace(-3, 3, 24).astype(dtype).reshape(2, 3, 4)
    expected = special.erf(np, base)
    views = (
        (base.T, expected.T),
        (base[:, ::-1, ::2], expected[:, ::-1, ::2]),
        (base[:, :1].repeat(2, axis=1), expected[:, :1].repeat(2, axis=1)),
        (np.broadcast_to(base[0], (5, 3, 4)), np.broadcast_to(expected[0], (5, 3, 4))),
        (base[1, 2, 3], expected[1, 2, 3]),
        (np.asarray(base[0, 1, 0]), expected[0, 1, 0]),
        (base[:, :0], expected[:, :0]),
    )
    for x, wanted in views:
        before = x.copy()
        got = special.erf(np, x)
        assert isinstance(got, np.ndarray)
        assert got.dtype == dtype
        assert got.shape == x.shape
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_chunks_do_not_show(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.linspace(-5, 5, 1009).astype(dtype)
    whole = special.erf(np, x)
    long = np.resize(x, 2 * special._CHUNK + 77)
    np.testing.assert_array_equal(special.erf(np, long), np.resize(whole, long.size))
    monkeypatch.setattr(special, "_CHUNK", 10)
    np.testing.assert_array_equal(special.erf(np, x), whole)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.complex64, np.bool_])
def test_unsupported_dtype(dtype: Any) -> None:
    with pytest.raises(ValueError, match="needs a float32 or float64 array, got"):
        special.erf(np, np.zeros(3, dtype=dtype))
