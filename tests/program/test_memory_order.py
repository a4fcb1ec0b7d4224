"""Routines choose the order of axes in memory; what is computed from their results keeps it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorgrad.program.ir import Program
from tensorgrad.program.loop_ir import Map, Reduce, View
from tensorgrad.program.lower import Lowering
from tensorgrad.program.symbolic import SymbolicArray, SymbolicNamespace

F32 = np.dtype(np.float32)


@pytest.fixture
def lowering() -> Lowering:
    return Lowering(Program())


def channels_last(lowering: Lowering, n: int, c: int, h: int, w: int) -> Any:
    """An array (n, c, h, w) that a routine made, with the channels side by side."""
    xp = SymbolicNamespace(lowering)
    (made,) = xp.routine("none.none", (), (), [((n, h, w, c), F32)])
    return made.transpose(0, 3, 1, 2)


def row_major(lowering: Lowering, *shape: int) -> Any:
    xp = SymbolicNamespace(lowering)
    return SymbolicArray(xp, lowering.new(shape, F32))


def strides(x: Any) -> tuple[int, ...]:
    view: View = x.elements
    return view.strides


def test_maps_keep_the_order(lowering: Lowering) -> None:
    x = channels_last(lowering, 2, 3, 4, 5)
    y = x.xp.maximum(x * row_major(lowering, 3, 1, 1) + 1.0, 0.0)
    assert y.shape == x.shape
    assert strides(y) == strides(x) == (60, 1, 15, 3)
    made = lowering.operations[-1]
    assert isinstance(made, Map)
    assert made.out.shape == (2, 4, 5, 3)  # the loop runs as memory lies
    assert made.out.contiguous


@pytest.mark.parametrize("first", [True, False])
def test_an_operand_in_another_order_is_read_where_it_lies(lowering: Lowering, first: bool) -> None:
    x, z = channels_last(lowering, 2, 3, 4, 5), row_major(lowering, 2, 3, 4, 5)
    y = x + z if first else z + x
    assert strides(y) == (60, 1, 15, 3)


def test_parts_of_it_keep_the_order(lowering: Lowering) -> None:
    x = channels_last(lowering, 2, 3, 4, 6)
    y = x.xp.maximum(x[:, :, ::2, ::2], x[:, :, 1::2, 1::2])
    assert strides(y) == (18, 1, 9, 3)


def test_sums_over_all_but_the_channels_run_over_rows(lowering: Lowering) -> None:
    x = channels_last(lowering, 2, 3, 4, 5)
    y = x.sum(axis=(0, 2, 3), keepdims=True)
    assert y.shape == (1, 3, 1, 1)
    made = lowering.operations[-1]
    assert isinstance(made, Reduce)
    assert (made.x.shape, made.axes) == ((2, 4, 5, 3), (0, 1, 2))


def test_copies_are_row_major(lowering: Lowering) -> None:
    x = channels_last(lowering, 2, 3, 4, 5)
    assert strides(x.copy()) == (60, 20, 5, 1)
    assert strides(x.reshape(2, 60)) == (60, 1)


def test_what_no_routine_made_lies_in_row_major_order(lowering: Lowering) -> None:
    x = row_major(lowering, 4, 3)
    assert strides(x.T + 1.0) == (4, 1)


def test_means_of_images_are_found_where_they_lie(lowering: Lowering) -> None:
    x = channels_last(lowering, 2, 3, 4, 5)
    assert x.sum(axis=(2, 3)).shape == (2, 3)
    assert x.sum(axis=1, keepdims=True).shape == (2, 1, 4, 5)
    assert x.sum(axis=(0, 1)).shape == (4, 5)
