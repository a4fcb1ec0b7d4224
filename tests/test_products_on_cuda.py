"""Matrix products on CUDA: what cuBLAS is asked for, on a stand-in that refuses what it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sampler import host
from standin import cublas, cupy_standin
from standin.cupy_standin import log

import tensorgrad as tg
from tensorgrad.backend import gemm
from tensorgrad.backend.launch import products


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Any]:
    with cupy_standin.installed() as module:
        yield module


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments of each call of cuBLAS."""
    found: list[tuple[Any, ...]] = []
    right = cublas.gemm

    def watched(*given: Any) -> int:
        found.append(given)
        return right(*given)

    monkeypatch.setattr(cublas, "gemm", watched)
    return found


def random_factor(draw: np.random.Generator, dims: tuple[int, ...], rows: int, columns: int) -> Any:
    """A stack on the device that lies in memory as it happens to, and its numbers."""
    shape = (*dims, rows, columns)
    order = draw.permutation(len(shape))
    step = draw.integers(1, 3, len(shape))
    whole = [shape[k] * step[k] + int(draw.integers(0, 3)) for k in order]
    values = draw.normal(size=whole).astype(np.float32)
    on_device = tg.Tensor(values, device="cuda").data
    back = tuple(int(axis) for axis in np.argsort(order))
    cut = tuple(slice(0, shape[k] * step[k], int(step[k])) for k in range(len(shape)))
    return on_device.transpose(back)[cut], values.transpose(back)[cut]


@pytest.mark.parametrize("seed", range(60))
def test_products_of_whatever_lies_anyhow(seed: int, installed: Any) -> None:
    draw = np.random.default_rng(seed)
    dims = tuple(int(n) for n in draw.integers(1, 4, int(draw.integers(0, 4))))
    m, k, n = (int(size) for size in draw.integers(1, 6, 3))
    factors = []
    for rows, columns in ((m, k), (k, n)):
        own = [1 if draw.random() < 0.3 else size for size in dims]
        own = own[int(draw.integers(0, len(own) + 1)) :] if draw.random() < 0.3 else own
        factors.append(random_factor(draw, tuple(own), rows, columns))
    (a, one), (b, two) = factors
    found = products.product(installed, a, b)
    wanted = one.astype(np.float64) @ two.astype(np.float64)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found.get(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("one", "two"),
    [
        ((3, 4), (4, 5)),
        ((7, 3, 4), (7, 4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((5,), (5,)),
        ((4,), (4, 2)),
    ],
)
def test_16_bits_are_multiplied_as_they_are(
    one: tuple[int, ...], two: tuple[int, ...], dtype: Any, asked: list[Any]
) -> None:
    """Forward and backward: no wider copy, float32 sums, one rounding."""
    draw = np.random.default_rng(1)
    a, b = (
        tg.Tensor(draw.normal(size=shape), dtype=dtype, device="cuda", requires_grad=True)
        for shape in (one, two)
    )
    log.clear()
    y = a @ b
    kind = gemm.CUDA_TYPES[dtype]
    assert {(g[7], g[11], g[16], g[-2]) for g in asked} == {(kind, kind, kind, 68)}
    assert log.launches == len(asked)
    wide = host(a).astype(np.float32) @ host(b).astype(np.float32)
    np.testing.assert_array_equal(host(y), np.asarray(wide).astype(dtype))
    asked.clear()
    tg.sum(y).backward()
    if len(one) > 1:
        assert len(asked) >= 2
    assert all((g[7], g[16], g[-2]) == (kind, kind, 68) for g in asked)


@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16, tg.float32, tg.float64], ids=str)
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4), (4,)])
def test_linear_rounds_once(shape: tuple[int, ...], dtype: Any) -> None:
    draw = np.random.default_rng(2)
    x, w, b = (
        tg.Tensor(draw.normal(size=size), dtype=dtype, device="cuda")
        for size in (shape, (5, 4), (5,))
    )
    wide = np.float64 if dtype == tg.float64 else np.float32
    arrays: list[Any] = [host(t).astype(wide) for t in (x, w, b)]
    wanted = (arrays[0] @ arrays[1].T + arrays[2]).astype(dtype)
    found = host(tg.nn.functional.linear(x, w, b))
    np.testing.assert_allclose(
        found.astype(wide), wanted.astype(wide), rtol=float(np.finfo(wide).eps) * 16
    )


STACKS: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
    ("a @ b", (6, 3, 4), (6, 4, 5)),
    ("a.mT @ b", (6, 4, 3), (6, 4, 5)),
    ("a @ b.mT", (6, 3, 4), (6, 5, 4)),
    ("a[:, :, :4] @ b", (6, 3, 9), (6, 4, 5)),
    ("a[::2] @ b", (12, 3, 4), (6, 4, 5)),
    ("a.permute_dims((1, 0, 2)) @ b", (3, 6, 4), (6, 4, 5)),
    ("a @ b", (6, 3, 4), (4, 5)),
    ("a.mT @ b", (6, 4, 3), (4, 5)),
    ("a @ b", (3, 4), (6, 4, 5)),
    ("a.permute_dims((0, 2, 1, 3)) @ b.permute_dims((0, 2, 3, 1))", (1, 3, 2, 4), (1, 5, 2, 4)),
]


@pytest.mark.parametrize(("text", "one", "two"), STACKS)
def test_stacks_are_multiplied_where_they_lie(
    text: str, one: tuple[int, ...], two: tuple[int, ...], asked: list[Any]
) -> None:
    """By one call, of float32 as of float64, and nothing is copied."""
    for dtype in (tg.float32, tg.float64):
        a, b = (
            tg.Tensor(np.arange(np.prod(s)).reshape(s) % 7, dtype=dtype, device="cuda")
            for s in (one, two)
        )
        names = {"a": a, "b": b}
        eval(text, names)
        asked.clear()
        log.clear()
        y = eval(text, names)
        assert (len(asked), log.launches) == (1, 1)
        wanted = eval(text, {"a": tg.tensor(host(a)), "b": tg.tensor(host(b))})
        np.testing.assert_array_equal(host(y), host(wanted))


def test_heads_are_multiplied_where_they_lie(asked: list[Any]) -> None:
    """(batch, positions, heads, width) has no single distance from one head to the next: a call for
    each of the fewer, up to eight; beyond, factors are copied."""
    for batch, heads, calls, copies in [(4, 9, 4, 0), (9, 3, 3, 0), (9, 10, 1, 2)]:
        q, k = (
            tg.Tensor(np.random.default_rng(s).normal(size=(batch, 5, heads, 4)), device="cuda")
            for s in (0, 1)
        )
        one, two = q.permute_dims((0, 2, 1, 3)), k.permute_dims((0, 2, 3, 1))
        asked.clear()
        log.clear()
        y = one @ two
        assert (len(asked), log.launches) == (calls, calls + copies)
        np.testing.assert_allclose(host(y), host(one) @ host(two), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "strides", "wanted"),
    [
        ((3, 4), (4, 1), (0, 4)),
        ((3, 4), (9, 1), (0, 9)),
        ((3, 4), (1, 3), (1, 3)),
        ((1, 4), (0, 1), (0, 4)),
        ((1, 4), (7, 2), (1, 2)),
        ((3, 1), (5, 0), (0, 5)),
        ((3, 4), (2, 1), None),
        ((3, 4), (0, 1), None),
        ((3, 4), (8, 2), None),
        ((3, 4), (-4, 1), None),
        ((1, 4), (4, 0), None),
    ],
)
def test_leading_dimensions(shape: Any, strides: Any, wanted: Any) -> None:
    assert gemm.leading(shape, strides) == wanted


def test_sizes_beyond_31_bits_are_left_alone() -> None:
    assert gemm.planned((1 << 31, 2), (2, 1), (2, 3), (3, 1)) is None
    assert type(gemm.planned((1 << 20, 2), (2, 1), (2, 3), (3, 1))) is gemm.Gemm
    assert gemm.planned((2, 2), (1 << 31, 1), (2, 3), (3, 1)) is None


def test_the_stand_in_refuses_what_cublas_refuses() -> None:
    at = np.ones(64, np.float32)
    zero, one = gemm.ZERO_AND_ONE[np.dtype(np.float32)]
    here = at.ctypes.data

    def status(**changed: int) -> int:
        given = {
            "ta": 0, "tb": 0, "m": 2, "n": 3, "k": 4, "alpha": one,
            "a": here, "a_kind": 0, "lda": 2, "step_a": 0,
            "b": here, "b_kind": 0, "ldb": 4, "step_b": 0, "beta": zero,
            "c": here + 128, "c_kind": 0, "ldc": 2, "step_c": 0,
            "count": 1, "compute": 68, "algorithm": -1,
        }  # fmt: skip
        return cublas.gemm(**{**given, **changed})

    assert status() == cublas.SUCCESS
    for changed in ({"lda": 1}, {"ldb": 3}, {"ldc": 1}, {"ta": 3}, {"m": -1}, {"algorithm": 99}):
        assert status(**changed) == cublas.INVALID_VALUE
    for changed in ({"a_kind": 2}, {"c_kind": 2}, {"compute": 70}, {"compute": 64}):
        assert status(**changed) == cublas.NOT_SUPPORTED
    with pytest.raises(AssertionError, match="misaligned"):
        status(a=here + 2)
    with pytest.raises(AssertionError, match="overlapping"):
        status(count=2, step_c=1)
