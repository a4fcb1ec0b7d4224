"""Matrix products of programs: those in tiles, whatever their sizes and layouts."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.vector_widths import WIDTHS, built

from tensorgrad import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


def lain(x: Array, way: int) -> Array:
    """``x`` in rows, in columns, or in rows of a wider array."""
    if way == 1:
        return x.T.copy().T
    return np.concatenate([x, x], axis=1)[:, : x.shape[1]] if way == 2 else x


@pytest.mark.parametrize("seed", range(6))
def test_products_are_exact_to_rounding(seed: int) -> None:
    """Each in a program of its own with others; infinities and NaN go where they belong."""
    rng = np.random.default_rng(seed)
    sizes = [[int(rng.integers(32, 150)), int(rng.integers(16, 100)), 0] for _ in range(4)]
    sizes[0][0], sizes[1][1] = 32 * sizes[0][0], 500
    factors: list[Array] = []
    for size in sizes:
        m, n, _ = size
        k = size[2] = int(rng.integers(8, 600)) + 200_000 // (m * n)
        a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
        a[m - 1, k - 1], b[0, n - 1] = np.inf, np.nan
        factors += [lain(x.astype(np.float32), int(rng.integers(3))) for x in (a, b)]

    def step(*xs: Tensor) -> list[Tensor]:
        return [a @ b for a, b in zip(xs[::2], xs[1::2])]

    tensors = [Tensor(x) for x in factors]
    captured = Captured(step, tensors)
    assert "products.h" in captured.executor.source.text
    for y, a, b, (m, n, k) in zip(captured(*tensors), factors[::2], factors[1::2], sizes):
        with np.errstate(invalid="ignore"):
            exact = a.astype(np.float64) @ b.astype(np.float64)
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(exact), err_msg=f"{m} {n} {k}")
        np.testing.assert_array_equal(y[-1, :-1], exact[-1, :-1].astype(np.float32))
        np.testing.assert_allclose(y[:-1, :-1], exact[:-1, :-1], rtol=1e-5, atol=2e-6 * k)


@pytest.mark.parametrize(("rows", "tiled"), [(1024, False), (1040, True)])
def test_columns_that_lie_whole_pages_apart_are_left_to_blas(rows: int, tiled: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((40, n)).astype(np.float32) for n in (rows, 50))
    tensors = [Tensor(a), Tensor(b)]
    captured = Captured(lambda x, y: [x.T @ y], tensors)
    assert ("products.h" in captured.executor.source.text) is tiled
    np.testing.assert_allclose(captured(*tensors)[0], a.T @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outer_products_are_a_part_of_what_is_done_with_them(dtype: Any) -> None:
    """Of one row a layer's gradient: no product is left, and no matrix between."""
    rng = np.random.default_rng(0)
    x, g, w = (rng.standard_normal(n).astype(dtype) for n in ((1, 50), (1, 70), (70, 50)))
    x[0, 3], g[0, 5] = np.inf, np.nan
    tensors = [Tensor(a) for a in (x, g, w)]
    captured = Captured(lambda x, g, w: [w - (g.T @ x) * 0.1], tensors)
    assert not any(word in captured.executor.source.text for word in ("gemm", "products.h"))
    assert len(captured.executor.schedule.units) == 1
    with np.errstate(invalid="ignore"):
        wanted = w - g.T * x * dtype(0.1)
    np.testing.assert_allclose(captured(*tensors)[0], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0)], ids=str)
def test_any_vectors(width: int, transposed: tuple[int, int], tmp_path: Any) -> None:
    """A product, and the same with a row added and with a matrix multiplied."""
    m, n, k = 45, 71, 300
    ta, tb = transposed
    sizes = f"{m}, {n}, {k}, {ta}, {m if ta else k}, {tb}, {k if tb else n}, 24, 64"
    library = built(
        '#include "products.h"\n'
        "static char rows[1 << 18] __attribute__((aligned(64)));\n"
        "static char *memory(void) { return rows; }\n"
        "void run(const float *a, const float *b, const float *e, float *c) {\n"
        "    tg_link(0, 0, 0, memory);\n"
        f"    tg_product({sizes}, a, b, c, 0, 4);\n"
        f"    tg_product_with({sizes}, 1, 0, a, b, e, c + {m * n}, 0, 4);\n"
        f"    tg_product_with({sizes}, 2, {n}, a, b, e, c + {2 * m * n}, 0, 4);\n}}\n",
        width,
        tmp_path,
    )
    rng = np.random.default_rng(width)
    a, b, e = (rng.standard_normal(shape) for shape in ((m, k), (k, n), (m, n)))
    given = [
        x.astype(np.float32, order="F" if flag else "C") for x, flag in ((a, ta), (b, tb), (e, 0))
    ]
    c = np.full((3, m, n), 7, np.float32)
    library.run(*[ctypes.c_void_p(x.ctypes.data) for x in (*given, c)])
    for found, wanted in zip(c, (a @ b, a @ b + e[0], a @ b * e), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-4)
