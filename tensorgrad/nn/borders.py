"""``pad``: elements added around a tensor, or taken away, with PyTorch's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

from tensorgrad.errors import ShapeError
from tensorgrad.ops import padding
from tensorgrad.ops.numbers import number
from tensorgrad.ops.shaping import shape_of, sliced
from tensorgrad.tensor import Tensor

__all__ = ["pad"]

#: how NumPy calls the modes
MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(
    input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """``input`` with elements added at the ends of its axes.

    pad: how many before and behind, the last axis first: ``(left, right, top, bottom)`` for two
        axes. Negative numbers take elements away.
    mode: "constant" adds ``value`` (0 if ``None``); "reflect" mirrors at the outermost element,
        "replicate" repeats it; "circular" goes on at the other end.

    Raises ValueError for another mode and for numbers that are no pairs, and ShapeError if an axis
    is too short for what is asked of it. ``tensorgrad.pad`` has NumPy's arguments.
    """
    shape = shape_of(input)
    try:
        numbers = [index(n) for n in pad]
    except TypeError:
        numbers = [0]
    if len(numbers) % 2 or len(numbers) > 2 * len(shape):
        raise ValueError(
            f"pad: pad must have two integers for each axis to be padded, of the {len(shape)} of "
            f"the input, the last axis first; got {pad!r}"
        )
    if mode not in MODES:
        raise ValueError(f"pad: mode must be one of {', '.join(MODES)}; got {mode!r}")
    constant = 0 if value is None else number("pad", "value", value)
    if constant and mode != "constant":
        raise ValueError(f'pad: mode "{mode}" adds no value; got value={value}')
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))[::-1]
    pairs = [(0, 0)] * (len(shape) - len(pairs)) + pairs
    for axis, (n, ends) in enumerate(zip(shape, pairs, strict=True)):
        _check(mode, axis, n, ends, shape)
    widths = tuple([(max(a, 0), max(b, 0)) for a, b in pairs])
    if mode in ("reflect", "replicate"):  # what is taken away at one end may be seen at the other
        return _less(padding.pad(input, widths, MODES[mode]), pairs)
    return padding.pad(_less(input, pairs), widths, MODES[mode], constant_values=constant)


def _less(x: Any, pairs: Sequence[tuple[int, int]]) -> Any:
    """``x`` without the elements that negative numbers take away."""
    if all(n >= 0 for pair in pairs for n in pair):
        return x
    ends = zip(shape_of(x), pairs, strict=True)
    return sliced(x, tuple([(max(-a, 0), n - max(-b, 0), None) for n, (a, b) in ends]))


def _check(mode: str, axis: int, n: int, ends: tuple[int, int], shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless an axis of ``n`` elements can be padded so."""
    if n + min(ends[0], 0) + min(ends[1], 0) < 0 or n + ends[0] + ends[1] < 0:
        raise ShapeError(f"pad: {ends} takes away more than axis {axis} of shape {shape} has")
    most = {"reflect": n - 1, "circular": n, "replicate": max(ends) if n else 0}.get(mode)
    if most is not None and max(ends) > max(most, 0):
        raise ShapeError(
            f'pad: mode "{mode}" can add at most {max(most, 0)} elements to axis {axis} of shape '
            f"{shape}; got {ends}"
        )
