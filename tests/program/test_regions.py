"""Stretches through which each thread takes rows of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EXECUTORS
from program.test_sums import recurrence

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.program import pool, regions
from tensorgrad.program.loop_ir import Storage, View
from tensorgrad.program.regions import Region, regions_of, shared_pieces

pytestmark = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

FLOAT = np.dtype(np.float32)


@pytest.fixture
def one_row_each(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Regions of few rows and little work, with pieces of one row; sets the number of threads."""
    for name, value in {"_ROWS": 2, "_PIECE": 1, "_WORK": 0}.items():
        monkeypatch.setattr(regions, name, value)
    return lambda threads: monkeypatch.setattr(pool, "threads", lambda: threads)


def bits(captured: Captured, given: list[Tensor]) -> list[bytes]:
    """What a program gives."""
    return [np.array(a).tobytes() for a in captured(*given)]


@pytest.mark.parametrize("seed", range(10))
def test_rows_on_their_own_have_the_bits_of_all_together(
    seed: int, one_row_each: Callable[[int], None]
) -> None:
    step, given = recurrence(seed, least=16, fewest=4, dtype=tg.float32)
    one_row_each(1)
    alone = Captured(step, given)
    assert not alone.executor.regions
    one_row_each(2)
    shared = Captured(step, given)
    assert shared.executor.regions
    wanted = bits(alone, given)
    for _ in range(3):
        assert bits(shared, given) == wanted
    for a, b in zip(shared(*given), step(*given), strict=True):
        np.testing.assert_allclose(a, b.data, rtol=2e-3, atol=2e-3)


def test_every_unit_of_a_loop_is_in_a_region() -> None:
    if pool.threads() < 2:
        pytest.skip("there is one thread")
    draw = np.random.default_rng(0)
    given = [
        Tensor(draw.normal(size=s).astype(np.float32) / 8)
        for s in ((9, 32, 64), (64, 256), (64, 256), (256,))
    ]

    def step(x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> list[Tensor]:
        h = c = tg.zeros((32, 64))
        for k in range(9):
            i, f, g, o = tg.split(x[k] @ w + h @ u + b, 4, 1)
            c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
            h = tg.sigmoid(o) * tg.tanh(c)
        return [h]

    captured = Captured(step, given)
    (region,) = captured.executor.regions
    assert (region.start, region.end) == (1, len(captured.executor.schedule.units))
    assert (region.rows, region.piece) == (32, 8)
    np.testing.assert_allclose(captured(*given)[0], step(*given)[0].data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "between",
    [
        lambda h: h.mean(axis=0) + h,  # each row knows of all
        lambda h: h[::-1] * 2.0,
        lambda h: tg.concat([h[1:], h[:1]]),
        lambda h: h * h.sum(),
        lambda h: h.T.reshape(h.shape) * 2.0,
        lambda h: h + h[3],
        lambda h: tg.take(h, tg.tensor([1, 0, 2, 3, 5, 4]), axis=0),
    ],
)
def test_what_knows_of_other_rows_ends_a_region(
    between: Callable[[Tensor], Tensor], one_row_each: Callable[[int], None]
) -> None:
    draw = np.random.default_rng(0)
    given = [Tensor(draw.normal(size=s).astype(np.float32) / 4) for s in ((6, 16), (16, 16))]

    def step(h: Tensor, u: Tensor) -> list[Tensor]:
        for k in range(6):
            h = tg.tanh(h @ u + 1.0) * 0.5
            if k in (2, 3):
                h = between(tg.sin(h @ u))
        return [h]

    one_row_each(1)
    wanted = bits(Captured(step, given), given)
    one_row_each(2)
    captured = Captured(step, given)
    for _ in range(5):
        assert bits(captured, given) == wanted
    np.testing.assert_allclose(captured(*given)[0], step(*given)[0].data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "step"),
    [
        ((4, 3), (3, 1), 0, 3),
        ((4, 3), (12, 1), 0, 12),  # columns
        ((4, 3), (12, 1), 9, 12),
        ((4, 3), (12, 1), 10, 0),  # over the end of a row
        ((4, 3), (12, 1), 48, 12),  # a later step of a sequence
        ((4, 3), (12, 1), 12, 0),  # begins with another row
        ((4, 3, 5), (12, 1, 48), 0, 12),  # all steps
        ((4, 3, 5), (12, 1, 24), 0, 0),  # steps that overlap
        ((4, 3), (0, 1), 0, 0),
        ((4, 3), (-3, 1), 9, 0),
        ((4, 3), (12, -1), 2, 0),
        ((4, 3), (1, 4), 0, 1),  # transposed
        ((3, 3), (3, 1), 0, 0),
    ],
)
def test_rows_of_a_view_are_rows_of_its_storage_or_it_is_said_that_they_are_not(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, step: int
) -> None:
    view = View(Storage(0, 240, FLOAT, "temporary"), shape, strides, offset)
    assert regions._row_step(regions._whole(view), 4) == step
    if step:  # by trying
        rows = np.full(240, -1)
        for index in np.ndindex(shape):
            rows[offset + sum(i * s for i, s in zip(index, strides))] = index[0]
        at = np.flatnonzero(rows >= 0)
        assert (at // step % 4 == rows[at]).all()


def test_memory_is_shared_within_a_region_by_values_with_equal_rows_alone() -> None:
    sizes = {"a": 8, "b": 8, "c": 4, "d": 8, "e": 8}
    a, b, c, d, e = (Storage(k, n, FLOAT, "temporary") for k, n in enumerate(sizes.values()))
    region = Region(2, 10, 2, written={a: 4, b: 4, c: 2, d: 1, e: 4})
    spans = {a: (32, 2, 4), b: (32, 5, 9), c: (16, 5, 6), d: (32, 7, 9), e: (32, 1, 3)}
    pieces, piece_of = shared_pieces([region], spans)
    assert piece_of[a] is piece_of[b]
    assert len({id(piece_of[s]) for s in (a, c, d, e)}) == 4
    assert pieces[piece_of[a]] == (32, 2, 9)
    assert pieces[piece_of[d]] == (32, 2, 9)
    assert pieces[piece_of[e]] == (32, 1, 9)
    assert shared_pieces([], spans)[0] == spans


def test_sums_over_rows_and_little_work_are_in_no_region() -> None:
    def step(x: Tensor) -> list[Tensor]:
        return [(tg.sin(x) * 2.0).sum(axis=0), tg.cos(x)]

    captured: Any = Captured(step, [Tensor(np.ones((64, 64), np.float32))])
    assert regions_of(captured.executor.schedule.units) == []
