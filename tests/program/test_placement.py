"""Parts that are made where they are joined."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.program.loop_ir import Map, Operation, Storage, View, strides_of
from tensorgrad.program.placement import placed, written_once

pytestmark = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

FLOAT = np.dtype(np.float32)


def joins(seed: int) -> tuple[Callable[[Tensor, Tensor], list[Tensor]], list[Tensor]]:
    """A random program that joins values: again, in parts, twice, and what others read, too."""
    draw = np.random.default_rng(seed)
    rows, columns = (int(n) for n in draw.integers(2, 6, 2))
    plan = [(str(draw.choice(KINDS)), draw.integers(0, 1 << 30, 4).tolist()) for _ in range(16)]
    shown = draw.integers(0, 1 << 30, 4).tolist()

    def step(x: Tensor, w: Tensor) -> list[Tensor]:
        values = [x[k] for k in range(5)]
        for kind, numbers in plan:
            a, b, c = (values[n % len(values)] for n in numbers[:3])
            many = [values[(numbers[3] + k * (1 + numbers[0] % 3)) % len(values)] for k in range(4)]
            if kind == "map":
                made = tg.sin(a) * 0.5 + b
            elif kind == "product":
                made = tg.tanh(a @ w)
            elif kind == "concat":
                made = tg.concat(many)[rows * (numbers[1] % 3) :][:rows] * 0.5
            elif kind == "wide":
                made = tg.concat(many, axis=1)[:, numbers[1] % 4 :: 4][:, :columns] + c * 0.1
            elif kind == "stack":
                made = tg.stack([*many, tg.cos(tg.stack(many)).sum(axis=0)]).mean(axis=0)
            elif kind == "nested":
                inner = tg.concat([tg.cos(a), b * 0.5])
                made = tg.concat([inner, tg.concat([inner * 2.0, c])])[1 : 1 + rows] + inner[:rows]
            else:  # rows of the argument, in order or not
                picked = tg.concat([x[(numbers[0] + k * (numbers[1] % 2)) % 5] for k in range(3)])
                made = tg.cos(picked)[:rows] + picked[rows : 2 * rows] * 0.1
            values.append(made)
        kept = [values[n % len(values)] for n in shown]
        return [tg.concat(kept), tg.stack(kept[::-1]), kept[0], tg.concat([values[-1], values[-1]])]

    shapes = (5, rows, columns), (columns, columns)
    return step, [Tensor(draw.normal(size=s).astype(np.float32)) for s in shapes]


KINDS = ["map", "product", "concat", "wide", "stack", "nested", "argument"]


@pytest.mark.parametrize("seed", range(12))
def test_random_joins_give_what_eager_mode_gives(seed: int) -> None:
    step, given = joins(seed)
    wanted, before = [t.data.copy() for t in step(*given)], [t.data.copy() for t in given]
    captured = Captured(step, given)
    for _ in range(2):
        found = captured(*given)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        for a in found:
            a[...] = np.nan  # nobody else has its memory
    assert all(np.array_equal(t.data, b) for t, b in zip(given, before, strict=True))


def storage(size: int, in_parts: bool = False, role: str = "temporary") -> Storage:
    """Some memory."""
    return Storage(0, size, FLOAT, role, in_parts=in_parts)


def rows_of(s: Storage, start: int, count: int) -> View:
    """Some rows of three numbers."""
    return View(s, (count, 3), (3, 1), 3 * start)


def copied(out: View, x: View) -> Map:
    """A copy."""
    return Map(out, "copy", (x,))


def joined(role: str = "temporary") -> tuple[list[Operation], Storage, Storage]:
    """Two halves of 6 rows: one that is computed, and one of another storage."""
    given, part, whole = storage(30, role="argument"), storage(9, role=role), storage(18, True)
    operations: list[Operation] = [
        Map(rows_of(part, 0, 3), "sin", (rows_of(given, 0, 3),)),
        copied(rows_of(whole, 0, 3), rows_of(part, 0, 3)),
        Map(rows_of(whole, 3, 3), "cos", (rows_of(part, 0, 3),)),
    ]
    return operations, part, whole


def test_a_part_is_made_where_it_is_joined_and_read_there() -> None:
    operations, _, whole = joined()
    maps = [op for op in placed(operations, {whole}) if type(op) is Map]
    assert [(m.out.storage, m.out.offset) for m in maps] == [(whole, 0), (whole, 9)]
    assert maps[1].views == [rows_of(whole, 0, 3)]


@pytest.mark.parametrize("role", ["external", "argument"])
def test_what_lies_outside_is_copied(role: str) -> None:
    operations, _, whole = joined(role)
    assert placed(operations, {whole}) == operations


def test_what_is_seen_outside_is_copied() -> None:
    operations, part, whole = joined()
    assert placed(operations, {whole, part}) == operations


def test_parts_that_overlap_are_written_in_order() -> None:
    operations, _, whole = joined()
    operations.append(copied(rows_of(whole, 2, 2), rows_of(storage(30, role="argument"), 0, 2)))
    assert written_once(operations) == set()
    assert placed(operations, set()) == operations


def test_what_is_written_again_is_copied() -> None:
    operations, part, whole = joined()
    operations.append(Map(rows_of(part, 0, 3), "exp", (rows_of(part, 0, 3),)))
    assert placed(operations, {whole}) == operations


@pytest.mark.parametrize(("starts", "spared"), [((0, 2), True), ((2, 0), False), ((0, 3), False)])
def test_what_lies_in_order_already_is_not_joined(starts: tuple[int, int], spared: bool) -> None:
    given, whole, out = storage(30, role="argument"), storage(12, True), storage(12)
    operations = [
        copied(rows_of(whole, 0, 2), rows_of(given, starts[0], 2)),
        copied(rows_of(whole, 2, 2), rows_of(given, starts[1], 2)),
        Map(rows_of(out, 0, 4), "sin", (rows_of(whole, 0, 4),)),
    ]
    found = placed(operations, {out})
    assert len(found) == (1 if spared else 3)
    assert found[-1].views == [rows_of(given if spared else whole, 0, 4)]


def test_an_argument_that_is_overwritten_is_joined_before() -> None:
    given, whole, out = storage(12, role="external"), storage(12, True), storage(12)
    operations = [
        copied(rows_of(whole, 0, 4), rows_of(given, 0, 4)),
        Map(rows_of(given, 0, 4), "exp", (rows_of(given, 0, 4),)),
        Map(rows_of(out, 0, 4), "sin", (rows_of(whole, 0, 4),)),
    ]
    assert placed(operations, {out, given}) == operations


def test_columns_are_apart_and_joined_by_copies() -> None:
    whole, part = storage(12, True), storage(6)
    halves = [View(whole, (3, 2), (4, 1), start) for start in (0, 2)]
    x = View(part, (3, 2), strides_of((3, 2)))
    operations = [Map(x, "sin", (x,)), copied(halves[0], x), copied(halves[1], x)]
    assert written_once(operations) == {whole}
    assert placed(operations, {whole}) == operations
