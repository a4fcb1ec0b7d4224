"""kernels/sorting.cu: numbers of rows in order, equal ones as they came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator import emulator
from kernel_devices import Cuda

import tensorgrad as tg
from tensorgrad import backend
from tensorgrad.backend.launch import common, sorting


@pytest.fixture(autouse=True)
def _few_schedules(cuda: Cuda) -> None:
    """Three tell what six would: in order, backwards, at random."""
    if not cuda.real and emulator.schedule not in (0, 1, 4):
        pytest.skip("three schedules are enough")


def check(index: Any, m: int, rows: int, inner: int = 1) -> None:
    """Against NumPy's stable sort of the places that the numbers name."""
    xp = backend.cuda_backend().xp
    found, in_order = sorting.rows_in_order(xp, xp.asarray(index), m, rows, inner)
    flat = np.asarray(index).reshape(-1).astype(np.int64) % rows
    i = np.arange(flat.size)
    places = (i // (m * inner) * rows + flat) * inner + i % inner
    order = np.argsort(places, kind="stable")
    np.testing.assert_array_equal(found.get(), order)
    np.testing.assert_array_equal(in_order.get(), places[order])


@pytest.mark.parametrize("n", [1, 33, 257, 2047, 2049, 5000])
def test_numbers_of_one_byte(cuda: Cuda, n: int, rng: np.random.Generator) -> None:
    """Chunks are full, or end within a warp; digits are all alike, or all are there."""
    for rows in (1, 3, 256):
        check(rng.integers(-rows, rows, n), n, rows)
    check(np.full(n, 200), n, 256)
    assert cuda.launched["sort_place"] == 4


def test_numbers_of_several_bytes(cuda: Cuda, rng: np.random.Generator) -> None:
    """A pass for each byte that the largest number has."""
    for bits, passes in ((8, 1), (9, 2), (40, 5)):
        cuda.launched.clear()
        check(rng.integers(0, 1 << bits, 2500), 2500, 1 << bits)
        assert cuda.launched["sort_place"] == cuda.launched["sort_offsets"] == passes
    check(np.repeat(rng.integers(0, 1 << 20, 300), 8), 2400, 1 << 20)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.int16])
def test_types_and_numbers_beyond_the_rows(cuda: Cuda, dtype: Any) -> None:
    index = np.array([3, 0, 9, 3, 120, 7, 0], dtype)
    check(index, 7, 8)
    if dtype is not np.uint8:
        check(-index, 7, 8)
    assert cuda.launched[f"sort_keys_{32 if dtype is np.int32 else 64}"] > 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_an_axis(cuda: Cuda, axis: int, rng: np.random.Generator) -> None:
    shape = [3, 9, 20]
    rows, inner = 7, int(np.prod(shape[axis + 1 :]))
    check(rng.integers(-rows, rows, shape), shape[axis], rows, inner)


def test_steps_through_the_grid(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """One block does all chunks, one after the other; offsets go beyond one round of a block."""
    monkeypatch.setattr(common, "MOST_BLOCKS", 1)
    common.forget_plans()
    check(rng.integers(0, 1000, 12_000), 12_000, 1000)
    monkeypatch.undo()
    common.forget_plans()


def test_sums_by_index_are_those_of_numpy(cuda: Cuda, rng: np.random.Generator) -> None:
    index = rng.integers(0, 700, 4100)
    x = cuda.tensor(np.zeros((700, 3)), "float64", requires_grad=True)
    g = rng.normal(size=(4100, 3))
    tg.take(x, tg.tensor(index, device="cuda"), axis=0).backward(cuda.tensor(g, "float64"))
    exact = np.zeros((700, 3))
    np.add.at(exact, index, g)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.cpu().numpy(), exact, atol=1e-12)
