"""Padding layers, in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tensorgrad.nn.borders import pad
from tensorgrad.nn.module import Module
from tensorgrad.ops.numbers import number
from tensorgrad.ops.windows import spatial
from tensorgrad.tensor import Tensor

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d",
    "ConstantPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d",
    "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


class _Pad(Module):
    """Elements added around the last axes of (N, C, ...) or (C, ...).

    padding: how many on all sides, or for each: ``(left, right, top, bottom, front, back)``.
    """

    _n: ClassVar[int]
    _mode: ClassVar[str]
    _shown: ClassVar[tuple[str, ...]] = ("padding",)

    def __init__(self, padding: int | Sequence[int]) -> None:
        sides = 2 * self._n
        given = (padding,) * sides if isinstance(padding, int) else tuple(padding)
        if len(given) != sides or not all(type(n) is int for n in given):
            raise ValueError(
                f"{type(self).__name__}: padding must be an integer, or {sides} of them, for both "
                f"ends of each axis, the last axis first; got {padding!r}"
            )
        self.padding = given

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with more elements along its last axes."""
        spatial(type(self).__name__, x, self._n)
        return pad(x, self.padding, self._mode, self._value())

    def _value(self) -> float | None:
        return None


class _ConstantPad(_Pad):
    _mode = "constant"
    _shown = ("padding", "value")

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value: Any = number(type(self).__name__, "value", value)

    def _value(self) -> float | None:
        found: float = self.value
        return found


class _ZeroPad(_Pad):
    _mode = "constant"


class _ReflectionPad(_Pad):
    _mode = "reflect"


class _ReplicationPad(_Pad):
    _mode = "replicate"


class _CircularPad(_Pad):
    _mode = "circular"


class ConstantPad1d(_ConstantPad):
    """``value`` around the last axis; see ``functional.pad`` for ``padding``."""

    _n = 1


class ConstantPad2d(_ConstantPad):
    """``value`` around the last two axes; see ``functional.pad`` for ``padding``."""

    _n = 2


class ConstantPad3d(_ConstantPad):
    """``value`` around the last three axes; see ``functional.pad`` for ``padding``."""

    _n = 3


class ZeroPad1d(_ZeroPad):
    """Zeros around the last axis; see ``functional.pad`` for ``padding``."""

    _n = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around the last two axes; see ``functional.pad`` for ``padding``."""

    _n = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around the last three axes; see ``functional.pad`` for ``padding``."""

    _n = 3


class ReflectionPad1d(_ReflectionPad):
    """The last axis mirrored at the outermost elements, which are not repeated."""

    _n = 1


class ReflectionPad2d(_ReflectionPad):
    """The last two axes mirrored at the outermost elements, which are not repeated."""

    _n = 2


class ReflectionPad3d(_ReflectionPad):
    """The last three axes mirrored at the outermost elements, which are not repeated."""

    _n = 3


class ReplicationPad1d(_ReplicationPad):
    """The outermost elements of the last axis repeated."""

    _n = 1


class ReplicationPad2d(_ReplicationPad):
    """The outermost elements of the last two axes repeated."""

    _n = 2


class ReplicationPad3d(_ReplicationPad):
    """The outermost elements of the last three axes repeated."""

    _n = 3


class CircularPad1d(_CircularPad):
    """The last axis going on at the other end."""

    _n = 1


class CircularPad2d(_CircularPad):
    """The last two axes going on at the other end."""

    _n = 2


class CircularPad3d(_CircularPad):
    """The last three axes going on at the other end."""

    _n = 3
