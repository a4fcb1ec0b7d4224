"""Reductions: sums, extremes, statistics and cumulative operations over one or more axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorgrad import dtypes
from tensorgrad.ops.shaping import Axis, normalize_axes, reshape
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply, broadcast_to, cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor


def spread(g: Any, x_shape: tuple[int, ...], axis: tuple[int, ...], keepdims: bool) -> Any:
    """``g``, reduced over ``axis``, repeated along those axes to ``x_shape``."""
    if not keepdims:
        g = reshape(g, tuple([1 if i in axis else n for i, n in enumerate(x_shape)]))
    return broadcast_to(g, x_shape)


_SUM = Primitive("sum", lambda xp, x, axis, keepdims: x.sum(axis=axis, keepdims=keepdims),
                 {"x": spread}, types="same", widen=True)


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(2, 3, 4), axis=1),
        lambda s: s(s.real(2, 3, 4), axis=(0, -1), keepdims=True),
        lambda s: s(s.real()),
        lambda s: s(s.real(0, 3), axis=0),
    ],
    primitive=_SUM,
)
def sum(
    x: Any, /, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False
) -> Tensor:
    """The sum over ``axis`` (all axes if ``None``); of integers in 64 bits.

    dtype: convert to this dtype before adding.
    """
    if dtype is not None:
        x = cast(x, dtypes.as_dtype(dtype))
    return apply(_SUM, (x,), {"axis": normalize_axes("sum", axis, x), "keepdims": keepdims})
