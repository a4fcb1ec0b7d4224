"""kernels/indexing.cu: rows taken by index, and added up by index in a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_devices import FLOATS, Cuda, as_float64, assert_close

import tensorgrad as tg
from tensorgrad.backend.launch import common

SEEN: dict[str, bytes] = {}


def added(shape: tuple[int, ...], index: Any, g: Any) -> Any:
    y = np.zeros(shape)
    np.add.at(y, index, g)
    return y


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 1000])
@pytest.mark.parametrize("dtype", FLOATS)
def test_rows(cuda: Cuda, dtype: str, columns: int, rng: np.random.Generator) -> None:
    """Taking, and the gradient: every repeated row adds up; rows not taken get zeros."""
    rows, n = 50, 300
    x = cuda.tensor(rng.normal(size=(rows, columns)), dtype, requires_grad=True)
    index = rng.integers(-rows, rows - 3, n)
    y = tg.take(x, index, axis=0)
    np.testing.assert_array_equal(as_float64(y), as_float64(x)[index])
    g = cuda.tensor(rng.normal(size=(n, columns)), dtype)
    y.backward(g)
    assert x.grad is not None
    exact = added((rows, columns), index, as_float64(g))
    assert_close(x.grad, exact, dtype, rounding=8, scale=4.0)
    assert cuda.launched == {
        "take_rows_64": 1, "sort_keys_64": 1, "sort_count": 1, "sort_offsets": 1, "sort_place": 1,
        "add_rows": 1, "join_rows": 1,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["one", "two", "sorted", "edges", "chunks", "distinct"])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 255, 256, 257, 1000, 3000])
def test_runs(cuda: Cuda, n: int, kind: str, rng: np.random.Generator) -> None:
    """Runs within a piece and a chunk of 256, across their edges, through several of them, and of
    single numbers."""
    index = {
        "one": np.full(n, 3),
        "two": np.arange(n) % 2 * 5,
        "sorted": np.sort(rng.integers(0, 7, n)),
        "edges": np.arange(n) // 64,
        "chunks": np.arange(n) // 640,
        "distinct": rng.permutation(n),
    }[kind]
    rows = max(8, int(index.max()) + 2)
    x = cuda.tensor(rng.normal(size=(rows, 5)), "float64", requires_grad=True)
    g = rng.normal(size=(n, 5))
    x[index].backward(cuda.tensor(g, "float64"))
    np.testing.assert_allclose(as_float64(x.grad), added((rows, 5), index, g), atol=1e-12)
    assert cuda.launched["add_rows"] == 1


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_scatter_add_and_gather(cuda: Cuda, dtype: str, rng: np.random.Generator) -> None:
    for axis in (0, 1):
        x = cuda.tensor(rng.normal(size=(6, 40)), dtype, requires_grad=True)
        index = rng.integers(0, x.shape[axis], (6, 40))
        src = cuda.tensor(rng.normal(size=(6, 40)), dtype, requires_grad=True)
        y = tg.scatter_add(x, tg.tensor(index, device="cuda"), src, axis)
        full = [np.arange(6)[:, None] + 0 * index, np.arange(40)[None] + 0 * index]
        full[axis] = index
        exact = as_float64(x) + added((6, 40), tuple(full), as_float64(src))
        assert_close(y, exact, dtype, rounding=8, scale=4.0)
        z = tg.gather(x, tg.tensor(index, device="cuda"), axis)
        z.sum().backward()
        ones = added((6, 40), tuple(full), np.ones((6, 40)))
        assert_close(x.grad, ones, dtype, scale=1.0)
    assert cuda.launched["add_rows"] == 4


def test_index_of_several_arrays(cuda: Cuda, rng: np.random.Generator) -> None:
    """Any index: positions are found by indexing numbers in order."""
    x = cuda.tensor(rng.normal(size=(4, 5, 6)), requires_grad=True)
    cases: list[Any] = [
        (np.array([0, 3, 0]), slice(None), np.array([1, 1, 1])),
        (slice(None), np.array([[4, 4], [0, 1]])),
        (..., np.array([5, 5, -1])),
        (np.array([1, 1]), None, slice(0, 2)),
    ]
    for index in cases:
        x.grad = None
        y = x[index]
        g = rng.normal(size=y.shape)
        y.backward(cuda.tensor(g))
        assert_close(x.grad, added((4, 5, 6), index, g), "float32", scale=4.0)
    assert cuda.launched["add_rows"] == len(cases)


def test_index_types_layouts_and_alignment(cuda: Cuda, rng: np.random.Generator) -> None:
    x = cuda.tensor(rng.normal(size=(9, 8)), offset=1, requires_grad=True)
    for kind in (np.int32, np.int64, np.uint8, np.int16):
        index = np.array([[3, 0], [8, 3]], kind)
        y = tg.take(x.T.T, tg.tensor(index, device="cuda"), axis=0)
        np.testing.assert_array_equal(as_float64(y), as_float64(x)[index])
    assert cuda.launched == {"take_rows_32": 1, "take_rows_64": 3}
    turned = cuda.tensor(rng.normal(size=(8, 9))).T
    np.testing.assert_array_equal(as_float64(turned[[8, 0]]), as_float64(turned)[[8, 0]])
    y = tg.take(x, np.array([2, 2, 5]), axis=0)
    y.sum().backward()  # a gradient that is one number, repeated
    expected = np.zeros((9, 8))
    expected[2], expected[5] = 2, 1
    np.testing.assert_array_equal(as_float64(x.grad), expected)


def test_out_of_range_stays_inside(cuda: Cuda) -> None:
    """Not looked for on a GPU: an index counts on from the other end, as CuPy has it."""
    x = cuda.tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    y = tg.take(x, tg.tensor([3, -4, 7], device="cuda"), axis=0)
    assert as_float64(y)[:, 0].tolist() == [0, 4, 2]
    y.sum().backward()
    assert as_float64(x.grad)[:, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("shape", "n"), [((3, 2), 0), ((3, 0), 4), ((0, 2), 0)])
def test_empty(cuda: Cuda, shape: tuple[int, int], n: int) -> None:
    x = cuda.tensor(np.ones(shape), requires_grad=True)
    y = tg.take(x, np.zeros(n, np.int64), axis=0)
    assert y.shape == (n, shape[1])
    y.sum().backward()
    assert as_float64(x.grad).tolist() == np.zeros(shape).tolist()


def test_steps_through_the_grid(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 1)
    for columns in (3, 300):
        x = cuda.tensor(rng.normal(size=(40, columns)), requires_grad=True)
        index = rng.integers(0, 4, 40_000 if columns == 3 else 700)
        y = tg.take(x, index, axis=0)
        np.testing.assert_array_equal(as_float64(y), as_float64(x)[index])
        y.sum().backward()
        counts = np.bincount(index, minlength=40)
        assert_close(x.grad, np.repeat(counts[:, None], columns, 1), "float32")


def test_same_bits_every_time(cuda: Cuda) -> None:
    rng = np.random.default_rng(5)
    x = cuda.tensor(rng.normal(size=(20, 7)), requires_grad=True)
    tg.take(x, rng.integers(0, 20, 3000), axis=0).backward(cuda.tensor(rng.normal(size=(3000, 7))))
    assert x.grad is not None
    found = x.grad.cpu().numpy().tobytes()
    if not cuda.real:
        assert SEEN.setdefault("rows", found) == found


def test_second_order(cuda: Cuda, rng: np.random.Generator) -> None:
    x = cuda.tensor(rng.normal(size=(5, 3)), "float64", requires_grad=True)
    index = np.array([4, 0, 4])
    (first,) = tg.autograd.grad((tg.take(x, index, axis=0) ** 3).sum(), x, create_graph=True)
    (second,) = tg.autograd.grad(first.sum(), x)
    exact = added((5, 3), index, 6 * as_float64(x)[index])
    np.testing.assert_allclose(as_float64(second), exact, rtol=1e-12)
