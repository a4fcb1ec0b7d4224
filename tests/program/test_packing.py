"""Products of few rows that share a packed factor."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EXECUTORS
from program.vector_widths import WIDTHS, built

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.program.loop_ir import Routine

pytestmark = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

Array = np.ndarray[Any, Any]
#: rows, columns, inner size, and whether the first factor lies transposed
SIZES = [
    (1, 16, 16, 0),
    (3, 33, 17, 1),
    (8, 64, 5, 0),
    (13, 100, 40, 0),
    (21, 47, 1, 1),
    (2, 7, 9, 1),
    (10, 70, 1300, 1),
]
TEXT = '#include "packed_product.h"\n' + "\n".join(
    f"void p{i}(const float *A, const float *B, float *C, long begin, long end) {{ "
    "tg_packed_product("
    f"{n}, {k}, {1 if t else k}, {m if t else 1}, A, B, C, begin, end); }}"
    for i, (m, n, k, t) in enumerate(SIZES)
)


def panels(b: Array) -> Array:
    """A factor as the routine wants it."""
    k, n = b.shape
    wide = np.zeros((k, -(-n // 32) * 32), np.float32)
    wide[:, :n] = b
    return np.ascontiguousarray(wide.reshape(k, -1, 32).transpose(1, 0, 2))


@pytest.mark.parametrize("width", WIDTHS)
def test_parts_of_any_size_have_the_bits_of_the_whole(width: int, tmp_path: Path) -> None:
    library, draw = built(TEXT, width, tmp_path), np.random.default_rng(0)
    for i, (m, n, k, t) in enumerate(SIZES):
        a, b = (
            draw.normal(size=(m, k)).astype(np.float32),
            draw.normal(size=(k, n)).astype(np.float32),
        )
        if i == 3:
            a[4, 7], b[9, 99] = np.inf, np.nan
        first, second = np.ascontiguousarray(a.T if t else a), panels(b)
        found = []
        for part in (m, 1, 5):
            out = np.full((m + 1, n), 7, np.float32)  # a row more, which is nobody's
            for begin in range(0, m, part):
                given = [ctypes.c_void_p(x.ctypes.data) for x in (first, second, out)]
                end = min(begin + part, m)
                getattr(library, f"p{i}")(*given, ctypes.c_long(begin), ctypes.c_long(end))
            assert (out[m] == 7).all()
            found.append(out[:m])
        with np.errstate(invalid="ignore"):
            wanted = a.astype(np.float64) @ b.astype(np.float64)
        np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-4)
        assert all(out.tobytes() == found[0].tobytes() for out in found)


def routines(captured: Captured) -> int:
    """How many products with packed factors there are."""
    units = captured.executor.schedule.units
    return sum(type(op) is Routine for unit in units for op in unit.operations)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("units", [16, 40, 72])
def test_a_factor_of_many_products_is_packed_once(units: int, transposed: bool) -> None:
    draw = np.random.default_rng(units)

    def step(h: Tensor, u: Tensor) -> list[Tensor]:
        found = []
        for _ in range(6):
            h = tg.tanh(h @ (u.T if transposed else u))
            found.append(h)
        return found

    given = [
        Tensor(draw.normal(size=s).astype(np.float32) / 4) for s in ((5, units), (units, units))
    ]
    captured = Captured(step, given)
    assert routines(captured) == 6
    for a, b in zip(captured(*given), step(*given), strict=True):
        np.testing.assert_allclose(a, b.data, rtol=1e-5, atol=1e-5)


def test_a_factor_that_changes_on_the_way_is_packed_again() -> None:
    draw = np.random.default_rng(0)
    u = Tensor(draw.normal(size=(32, 32)).astype(np.float32) / 6)
    h0 = Tensor(draw.normal(size=(4, 32)).astype(np.float32))

    def step(h: Tensor) -> list[Tensor]:
        for k in range(10):
            h = h @ u
            if k == 4:
                u.copy_(u * 0.5)
        return [h]

    before = u.data.copy()
    wanted = [h.data.copy() for h in step(h0)]
    u.data[...] = before
    captured = Captured(step, [h0])
    assert routines(captured) == 10
    np.testing.assert_allclose(captured(h0)[0], wanted[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(u.data, before * np.float32(0.5))


@pytest.mark.parametrize(
    "step",
    [
        lambda x, w: [x[k] @ w for k in range(3)],  # too few products
        lambda x, w: [x[k] @ (w * (k + 1.0)) for k in range(5)],  # factors of their own
        lambda x, w: [x[k].astype(tg.float64) @ w.astype(tg.float64) for k in range(5)],
        lambda x, w: [x[k, :2] @ w for k in range(5)],  # too few rows
    ],
)
def test_what_is_not_shared_or_does_not_fit_stays_a_product(
    step: Callable[[Tensor, Tensor], list[Tensor]],
) -> None:
    draw = np.random.default_rng(0)
    given = [Tensor(draw.normal(size=s).astype(np.float32)) for s in ((5, 6, 24), (24, 20))]
    captured = Captured(step, given)
    assert routines(captured) == 0
    for a, b in zip(captured(*given), step(*given), strict=True):
        np.testing.assert_allclose(a, b.data, rtol=1e-5, atol=1e-5)
