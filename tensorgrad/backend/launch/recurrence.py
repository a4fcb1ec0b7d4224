"""LSTM and GRU over a sequence: kernels/recurrence.cu between products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.launch.bias_activation import column_sums
from tensorgrad.backend.launch.common import (
    THREADS,
    Plan,
    blocks_for,
    contiguous,
    fits,
    forward,
    per_pack,
    planned,
)
from tensorgrad.backend.launch.products import product
from tensorgrad.dtypes import HALVES, float32


@planned
def _plan(xp: Any, name: str, dtype: np.dtype[Any], batch: int, hidden: int, packed: bool) -> Plan:
    grid = (blocks_for(batch * hidden, per_pack(dtype) if packed else 1),)
    kernel = kernels.get(xp, "recurrence", name, dtype)
    return kernel, grid, (THREADS,), (np.int32(packed),)


def _cut(flat: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Parts of a flat array, which share its memory."""
    found, at = [], 0
    for shape in shapes:
        size = math.prod(shape)
        found.append(flat[at : at + size].reshape(shape))
        at += size
    return found


class _Steps:
    """The launches of one kernel for all steps: ``launch(step, arrays, flags)``.

    Of arrays that may be ``None`` one that is there stands in for the pointer, and a flag says so.
    """

    def __init__(
        self, xp: Any, name: str, like: Array, batch: int, hidden: int, lengths: Any,
        arrays: tuple[Any, ...],
    ) -> None:  # fmt: skip
        self.sizes = batch, hidden
        self.length = xp.empty(1, np.int64) if lengths is None else lengths
        self.has_length = np.int32(lengths is not None)
        # every step of an array begins a multiple of rows after its first
        packed = not any(
            (hidden * like.itemsize | a.data.ptr) % 16 for a in arrays if a is not None
        )
        self.kernel, self.grid, self.block, self.packed = _plan(
            xp, name, like.dtype, batch, hidden, packed
        )

    def launch(self, step: int, arrays: tuple[Any, ...], optional: tuple[Any, ...]) -> None:
        there = next(a for a in arrays if a is not None)
        flags = [np.int32(a is not None) for a in optional]
        given = [there if a is None else a for a in arrays]
        self.kernel(
            self.grid, self.block,
            (*given, self.length, *flags, self.has_length, *self.packed, step, *self.sizes),
        )  # fmt: skip


def _prepared(xp: Any, arrays: tuple[Any, ...], lengths: Any) -> Any:
    """Contiguous floats of 32 or 64 bits of one dtype, and int64 lengths; or NotImplemented."""
    given = [a for a in arrays if a is not None]
    if not fits(xp, *given) or not all(a.size for a in given):
        return NotImplemented
    found = [
        None if a is None else contiguous(xp, a.astype(float32) if a.dtype in HALVES else a)
        for a in arrays
    ]
    if lengths is not None:
        lengths = contiguous(xp, lengths.astype(np.int64, copy=False))
    return found, lengths


def _order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


@forward("gru")
@forward("lstm")
def _value(
    xp: Any, x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array,
    w_hr: Array, lengths: Array, *, reverse: bool, kind: str, keep: bool,
) -> Any:  # fmt: skip
    if w_hr is not None:
        return NotImplemented
    ready = _prepared(xp, (x, h, c, w_ih, w_hh, b_ih, b_hh), lengths)
    if ready is NotImplemented:
        return ready
    half = x.dtype if x.dtype in HALVES else None
    (x, h, c, w_ih, w_hh, b_ih, b_hh), lengths = ready
    steps, batch, size = x.shape
    rows, hidden = w_hh.shape
    state = batch, hidden
    y = xp.empty((steps + (2 if kind == "lstm" else 1)) * batch * hidden, x.dtype)
    if reverse:
        outs, first, *cell = _cut(y, (steps, *state), state, *[state] * (kind == "lstm"))
    else:
        first, outs, *cell = _cut(y, state, (steps, *state), *[state] * (kind == "lstm"))
    first[...] = 0 if h is None else h
    gates = xp.empty((steps, batch, rows), x.dtype)
    _multiplied(xp, x.reshape(-1, size), w_ih.T, gates.reshape(-1, rows))
    run = _lstm if kind == "lstm" else _gru
    kept = run(xp, gates, outs, h, c, w_hh, b_ih, b_hh, lengths, _order(steps, reverse), cell)
    # As the loops of ops/recurrence_loops.py keep them: batches in columns.
    r = tuple(a.transpose(0, 2, 1) for a in (gates, kept)) if keep else ()
    return (y if half is None else y.astype(half)), r


def _multiplied(xp: Any, a: Array, b: Array, out: Array, add: bool = False) -> None:
    """``a @ b`` to ``out``, or added to it."""
    if product(xp, a, b, out, add) is NotImplemented:
        found = xp.matmul(a, b)
        out[...] = out + found if add else found


def _lstm(
    xp: Any, gates: Array, outs: Array, h: Any, c: Any, w_hh: Array, b_ih: Any, b_hh: Any,
    lengths: Any, order: range, cell: list[Array],
) -> Array:  # fmt: skip
    """The steps of an LSTM; the cells of all of them."""
    _, batch, hidden = outs.shape
    cells = xp.empty(outs.shape, outs.dtype)
    arrays = (gates, b_ih, b_hh, c, h, cells, outs)
    steps = _Steps(xp, "lstm_forward", outs, batch, hidden, lengths, arrays)
    w = w_hh.T
    for t in order:
        if h is not None:
            _multiplied(xp, h, w, gates[t], add=True)
        steps.launch(
            t, (gates[t], b_ih, b_hh, c, h, cells[t], outs[t]), (b_ih, b_hh, c, h)
        )  # fmt: skip
        h, c = outs[t], cells[t]
    cell[0][...] = c
    return cells


def _gru(
    xp: Any, gates: Array, outs: Array, h: Any, c: Any, w_hh: Array, b_ih: Any, b_hh: Any,
    lengths: Any, order: range, cell: list[Array],
) -> Array:  # fmt: skip
    """The steps of a GRU; what r multiplies in each."""
    _, batch, hidden = outs.shape
    states, through = xp.empty(outs.shape, outs.dtype), xp.empty(gates.shape[1:], outs.dtype)
    arrays = (gates, through, b_ih, b_hh, h, states, outs)
    steps = _Steps(xp, "gru_forward", outs, batch, hidden, lengths, arrays)
    w = w_hh.T
    for t in order:
        made = None
        if h is not None:
            _multiplied(xp, h, w, through)
            made = through
        steps.launch(
            t, (gates[t], made, b_ih, b_hh, h, states[t], outs[t]), (made, b_ih, b_hh, h)
        )  # fmt: skip
        h = outs[t]
    return states


@forward("recurrence_weights")
def _weights(xp: Any, d: Array, x: Array, before: Array) -> Any:
    """The gradients of matrices and of the bias, flat, each made where it is to lie."""
    factors = [a for a in (x, before) if a is not None]
    if not fits(xp, d, *factors) or not all(a.size for a in (d, *factors)):
        return NotImplemented
    rows = d.shape[1]
    flat = xp.empty(rows * (1 + sum(a.shape[1] for a in factors)), d.dtype)
    *matrices, bias = _cut(flat, *[(rows, a.shape[1]) for a in factors], (rows,))
    for factor, out in zip(factors, matrices, strict=True):
        _multiplied(xp, d.T, factor, out)
    column_sums(xp, d, bias)
    return flat


def _rows(xp: Any, kept: Array) -> Array:
    """What was kept, with batches in rows; a copy where it was not this file that kept it."""
    return contiguous(xp, kept.transpose(0, 2, 1))


@forward("lstm_backward")
def _lstm_back(
    xp: Any, g: Array, y: Array, c: Array, w_hh: Array, w_hr: Array, lengths: Array, gates: Array,
    cells: Array, *, sizes: tuple[Any, ...],
) -> Any:  # fmt: skip
    if w_hr is not None:
        return NotImplemented
    ready = _prepared(xp, (g, c, w_hh), lengths)
    if ready is NotImplemented or g.dtype in HALVES:
        return NotImplemented
    (g, c, w_hh), lengths = ready
    steps, batch, hidden, _, _, reverse, _ = sizes
    gates, cells = _rows(xp, gates), _rows(xp, cells)
    state = batch, hidden
    flat = xp.empty((4 * steps + 2) * batch * hidden, g.dtype)
    d, dh, dc = _cut(flat, (steps, batch, 4 * hidden), state, state)
    outs = g[batch * hidden * (not reverse) :][: steps * batch * hidden].reshape(steps, *state)
    dc[...] = g[(steps + 1) * batch * hidden :].reshape(state)
    run = _Steps(xp, "lstm_backward", g, batch, hidden, lengths, (gates, cells, c, outs, dh, dc, d))
    later = None
    order = _order(steps, not reverse)
    for t in order:
        before = c if t == order[-1] else cells[t + order.step]
        arrays = (gates[t], cells[t], before, outs[t], dh, dc, d[t])
        run.launch(t, arrays, (before, later))
        # of ended sequences the kernel leaves what passes by
        _multiplied(xp, d[t], w_hh, dh, add=lengths is not None)
        later = dh
    return flat


@forward("gru_backward")
def _gru_back(
    xp: Any, g: Array, y: Array, c: Array, w_hh: Array, w_hr: Array, lengths: Array, gates: Array,
    states: Array, *, sizes: tuple[Any, ...],
) -> Any:  # fmt: skip
    ready = _prepared(xp, (g, y, w_hh), lengths)
    if ready is NotImplemented or g.dtype in HALVES:
        return NotImplemented
    (g, y, w_hh), lengths = ready
    steps, batch, hidden, _, _, reverse, _ = sizes
    gates, states = _rows(xp, gates), _rows(xp, states)
    state = batch, hidden
    flat = xp.empty((6 * steps + 1) * batch * hidden, g.dtype)
    d, inner, dh = _cut(flat, *[(steps, batch, 3 * hidden)] * 2, state)
    count = steps * batch * hidden
    outs = g[batch * hidden * (not reverse) :][:count].reshape(steps, *state)
    before = y[batch * hidden * reverse :][:count].reshape(steps, *state)
    run = _Steps(
        xp, "gru_backward", g, batch, hidden, lengths, (gates, states, before, outs, dh, d, inner)
    )
    later = None
    for t in _order(steps, not reverse):
        arrays = (gates[t], states[t], before[t], outs[t], dh, d[t], inner[t])
        run.launch(t, arrays, (later,))
        _multiplied(xp, inner[t], w_hh, dh, add=True)
        later = dh
    return flat
