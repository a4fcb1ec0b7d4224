"""Outputs of routines that lie where their inputs did."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.program.arena import lifetimes, reuse
from tensorgrad.program.loop_ir import Routine, Storage, View
from tensorgrad.program.schedule import Single

FLOAT = np.dtype(np.float32)


def storage(number: int, size: int = 8) -> Storage:
    return Storage(number, size, FLOAT, "temporary")


def whole(s: Storage, offset: int = 0) -> View:
    return View(s, (s.size - offset,), (1,), offset)


def unit(inputs: list[View], outputs: list[View], *reused: tuple[int, int]) -> Single:
    return Single(
        Routine("h", "f", (), tuple(inputs), tuple(outputs), 1, 1, 1, reused=tuple(reused))
    )


def planned(units: list[Single]) -> tuple[Any, Any]:
    spans: Any = lifetimes([[u] for u in units], set())
    piece_of: Any = {s: s for s in spans}
    reuse(units, spans, piece_of)
    return spans, piece_of


def test_what_is_read_for_the_last_time_makes_room() -> None:
    """For an output that is larger, too; and for one after the other."""
    a, b, c, d = storage(0), storage(1, 12), storage(2), storage(3)
    units = [
        unit([], [whole(a)]),
        unit([whole(a)], [whole(b)], (0, 0)),
        unit([whole(b)], [whole(c), whole(d)], (1, 0)),
        unit([whole(c), whole(d)], []),
    ]
    pieces, piece_of = planned(units)
    assert piece_of[a] is piece_of[b] is piece_of[d]
    assert piece_of[c] is c
    assert pieces == {piece_of[a]: (48, 0, 3), c: (32, 2, 3)}


def test_what_is_read_again_or_otherwise_stays() -> None:
    def shared(*units: Single) -> bool:
        _, piece_of = planned([unit([], [whole(a)]), *units])
        return piece_of[a] is piece_of.get(b)

    a, b, c = storage(0), storage(1), storage(2)
    usual = unit([whole(a)], [whole(b)], (0, 0))
    assert shared(usual)
    assert not shared(unit([whole(a)], [whole(b)]))  # nobody allows it
    assert not shared(usual, unit([whole(a)], []))  # read later
    assert not shared(unit([], [whole(b)]), usual)  # the output has something already
    assert not shared(unit([whole(a, 2)], [whole(b)], (0, 0)))  # other places
    assert not shared(unit([whole(a)], [whole(b, 2)], (0, 0)))
    assert not shared(unit([whole(a), whole(a)], [whole(b)], (0, 0)))  # by another input, too
    again = unit([whole(a)], [whole(c)], (0, 0))
    assert not shared(again, unit([whole(a)], [whole(b)]))


def test_memory_that_a_region_needs_longer_stays() -> None:
    a, b = storage(0), storage(1)
    units = [unit([], [whole(a)]), unit([whole(a)], [whole(b)], (0, 0)), unit([whole(b)], [])]
    for spans in ({a: (32, 0, 2), b: (32, 1, 2)}, {a: (32, 0, 1), b: (32, 0, 2)}):
        pieces: Any = dict(spans)
        piece_of: Any = {a: a, b: b}
        reuse(units, pieces, piece_of)
        assert pieces == spans
        assert piece_of == {a: a, b: b}
