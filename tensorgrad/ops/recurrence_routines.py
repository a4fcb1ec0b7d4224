"""The loops over time of recurrent layers as routines of programs (``program/c/recurrence.h``).

They give what those of ``recurrence_loops.py`` give, with the same names and the same sizes.
Weights are packed anew in every step; then pieces of the batch go through the whole sequence, each
in one thread. What is kept for the gradient lies by rows of the batch, and is seen as the loops'.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorgrad.ops.recurrence_loops import Sizes, sizes_of

__all__: list[str] = []

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
# Floats in the largest vectors of a processor; storages are long enough for each of these.
_LANES = (4, 8, 16)
# The rows of a piece of the batch, which all weights are read for: as few as keep what is read from
# the second cache behind the arithmetic; more, where weights come from the third.
_ROWS, _MANY_ROWS, _IN_CACHE = 8, 16, 1 << 18
# What is projected has a row in the memory of the thread for each row of a piece.
_PROJECTED = 2048
# TG_ACROSS in the header: the columns of what comes backward in a piece of the weights' gradients.
_ACROSS = 64


def _check_fit(xp: Any, x: Any, sizes: Sizes | None = None) -> None:
    """Refuse what the routines do not serve."""
    if x.dtype != np.float32:
        xp.refuse(f"a recurrence of {x.dtype} is left to NumPy")
    if sizes is not None and sizes.projects and sizes.hidden > _PROJECTED:
        xp.refuse("a state before its projection is too large for the memory of a thread")


def _plain(x: Any) -> Any:
    """``x``, row-major and without gaps."""
    return x if x.elements.contiguous else x.copy()


def _cut(flat: Any, parts: dict[str, tuple[int, ...]], name: str) -> Any:
    at = 0
    for key, shape in parts.items():
        if key == name:
            return flat[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    raise KeyError(name)


def _padded(gates: int, units: int) -> int:
    """The units of a packed matrix, at most, with those that fill up vectors and panels."""
    if gates > 1:
        return -(-units // max(_LANES)) * max(_LANES)
    found = 0
    for lanes in _LANES:
        vectors = -(-units // lanes)
        panels = -(-vectors // 4)
        found = max(found, panels * -(-vectors // panels) * lanes)
    return found


def _packed(xp: Any, w: Any, gates: int, units: int) -> Any:
    """A matrix (gates * units, depth) as panels."""
    depth = w.shape[1]
    size = 4 if w.size > 1 << 14 else 1
    given = gates, units, depth, *w.elements.strides, size
    shape = (depth * gates * _padded(gates, units),)
    return xp.routine(
        "recurrence.pack", given, [w], [(shape, w.dtype)], size, 1, cost=w.size
    )[0]  # fmt: skip


def _packed_bias(xp: Any, bias: Any, gates: int, units: int, dtype: Any) -> Any:
    """The biases of gates, in the order of panels; zeros without one."""
    if bias is None:
        return xp.zeros((gates * _padded(gates, units),), dtype)
    return _packed(xp, bias.reshape(-1, 1), gates, units)


def _pieces(sizes: Sizes, w_hh: Any) -> dict[str, int]:
    """Into which pieces the batch is cut, and what the work costs."""
    rows = _ROWS if w_hh.size <= _IN_CACHE else _MANY_ROWS
    cost = sizes.steps * sizes.batch * w_hh.size // 4
    return {"size": sizes.batch, "piece": min(rows, sizes.batch), "cost": cost}


def _lengths(xp: Any, lengths: Any, steps: int) -> Any:
    if lengths is None:
        return None
    lengths = _plain(lengths.astype(np.int64, copy=False))
    xp.check_labels(xp.subtract(lengths, 1), steps)
    return lengths


def _added(xp: Any, a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else xp.add(a, b)


def _bias(xp: Any, b_ih: Any, b_hh: Any, sizes: Sizes, dtype: Any) -> Any:
    """The biases as panels, those of both products added; of a GRU's candidate each by itself."""
    gates, n = _GATES[sizes.kind], sizes.hidden
    if sizes.kind != "gru" or (b_ih is None and b_hh is None):
        return _packed_bias(xp, _added(xp, b_ih, b_hh), max(gates, 4 * (gates > 1)), n, dtype)
    none = xp.zeros((n,), dtype)
    both = _added(xp, *[None if b is None else b[: 2 * n] for b in (b_ih, b_hh)])
    apart = [none if b is None else b[2 * n :] for b in (b_ih, b_hh)]
    return _packed_bias(xp, xp.concatenate([both, *apart]), 4, n, dtype)


def value(
    xp: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    lengths: Any, reverse: bool, kind: str, keep: bool,
) -> Any:  # fmt: skip
    """``lstm_value``, ``gru_value`` and ``rnn_value`` of ``recurrence_loops.py`` as routines."""
    steps, batch, n, out, *_ = sizes = sizes_of(kind, x, w_hh, w_hr, reverse)
    _check_fit(xp, x, sizes)
    if x.elements.strides[2] != 1:
        x = x.copy()
    gates, lengths = _GATES[kind], _lengths(xp, lengths, steps)
    packed = [_packed(xp, w, gates, n) for w in (w_ih, w_hh)]
    bias = _bias(xp, b_ih, b_hh, sizes, x.dtype)
    options, size = [h, lengths], [n]
    if kind == "lstm":
        options, size = [h, c, lengths], [n, out, int(sizes.projects)]
        packed.append(_packed(xp, w_hr, 1, out) if sizes.projects else bias)
    given = [x, *packed, bias, *[bias if a is None else _plain(a) for a in options]]
    numbers = [steps, batch, x.shape[2], *size, *x.elements.strides[:2], int(reverse)]
    numbers += [int(a is not None) for a in options]
    made: list[Any] = [((sum(map(math.prod, sizes.value.values())),), x.dtype)]
    work = _pieces(sizes, w_hh)
    if gates == 1:
        numbers.insert(0, int(kind == "rnn_relu"))
        return xp.routine("recurrence.rnn", numbers, given, made, **work)[0], ()
    if not keep:
        return xp.routine(f"recurrence.{kind}", numbers, given, made, **work)[0], ()
    made += [((steps, batch, gates * n), x.dtype), ((steps, batch, n), x.dtype)]
    y, *kept = xp.routine(f"recurrence.{kind}_kept", numbers, given, made, **work)
    return y, tuple(a.transpose(0, 2, 1) for a in kept)


def back(
    xp: Any, g: Any, y: Any, c: Any, w_hh: Any, w_hr: Any, lengths: Any, *kept: Any,
    sizes: tuple[Any, ...],
) -> Any:  # fmt: skip
    """``lstm_back``, ``gru_back`` and ``rnn_back`` of ``recurrence_loops.py`` as routines."""
    size = Sizes(*sizes)
    _check_fit(xp, g, size)
    packed = _packed(xp, w_hh.T, 1, size.out)
    lengths = _lengths(xp, lengths, size.steps)
    numbers = [size.steps, size.batch, size.hidden, int(size.reverse)]
    given = [_plain(g), _plain(y), packed]
    if size.kind == "lstm":
        numbers[3:] = [size.out, int(size.projects), int(size.reverse), int(c is not None)]
        given[1] = packed if c is None else _plain(c)
        given.append(_packed(xp, w_hr.T, 1, size.hidden) if size.projects else packed)
    given.append(packed if lengths is None else lengths)
    given += [_plain(a.transpose(0, 2, 1)) for a in kept]
    numbers.append(int(lengths is not None))
    name = size.kind.partition("_")[0]
    if name == "rnn":
        numbers.insert(0, int(size.kind == "rnn_relu"))
    made = [((sum(map(math.prod, size.parts.values())),), g.dtype)]
    # What comes backward through the gates of a row takes their place.
    reused = [(0, len(given) - len(kept))] if kept else []
    work = _pieces(size, w_hh)
    return xp.routine(f"recurrence.{name}_back", numbers, given, made, **work, reused=reused)[0]


def weights(xp: Any, d: Any, x: Any, before: Any) -> Any:
    """``recurrence_loops.weights`` as a routine."""
    _check_fit(xp, d)
    rows, across = d.shape
    given = [None if a is None else _plain(a) for a in (x, before)]
    widths = [0 if a is None else a.shape[1] for a in given]
    own = [_plain(d), *[next(a for a in (b, *given) if a is not None) for b in given]]
    numbers = [rows, across, *widths, max(widths[0], 1)]
    made = [((across * (sum(widths) + 1),), d.dtype)]
    parts = -(-across // _ACROSS)
    cost = rows * across * (sum(widths) + 1) // 8
    return xp.routine("recurrence.weights", numbers, own, made, parts, 1, cost)[0]
