"""What the functions in NumPy's own form have in common: arguments, ``out=``, plain functions.

These functions (``statistics``, ``joining``, ...) have NumPy's arguments and are written with the
operations of the table, whose gradients of every order, devices and loops in programs are theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import DtypeError, GradientError, ShapeError
from tensorgrad.observers import current_mode
from tensorgrad.ops.shaping import Axis, normalize_axes, permute_dims, reshape, shape_of
from tensorgrad.tape import Primitive, apply, cast


def as_array(x: Any, like: Any = None) -> Any:
    """``x`` if it is a tensor or an array; sequences and numbers as a tensor.

    like: a tensor or an array whose dtype these take, if it is one of real or complex numbers.
    """
    if hasattr(x, "dtype") and hasattr(x, "reshape") and not isinstance(x, np.generic):
        return x
    from tensorgrad.ops.creation import asarray

    y = asarray(x)
    wanted = getattr(like, "dtype", None)
    if y.dtype in dtypes.INEXACT and wanted in dtypes.INEXACT and y.dtype != wanted:
        if y.dtype in dtypes.COMPLEX:
            wanted = dtypes.complex_of(wanted)
        return y if _holds_arrays(x) else asarray(x, dtype=wanted)
    return y


def _holds_arrays(x: Any) -> bool:
    if isinstance(x, list | tuple):
        return any(map(_holds_arrays, x))
    return hasattr(x, "dtype") and not isinstance(x, np.generic)


def as_inexact(x: Any, like: Any = None) -> Any:
    """``as_array(x)`` as real or complex numbers: integers become the default dtype, or like's."""
    x = as_array(x, like)
    if x.dtype in dtypes.INEXACT:
        return x
    wanted = getattr(like, "dtype", None)
    return cast(x, wanted if wanted in dtypes.INEXACT else dtypes.get_default_dtype())


def together(*xs: Any) -> list[Any]:
    """Each as ``as_array`` gives it; numbers and sequences in the dtype of the widest array."""
    kinds = [x.dtype for x in xs if _holds_arrays(x) and hasattr(x, "dtype")]
    kinds = [kind for kind in kinds if kind in dtypes.INEXACT]
    like = np.empty(0, dtypes.promote(kinds)) if kinds else None
    return [as_array(x, like) for x in xs]


def inexact(*xs: Any) -> list[Any]:
    """``together``, as real or complex numbers."""
    return [as_inexact(x) for x in together(*xs)]


def placed(name: str, y: Any, out: Any) -> Any:
    """``y``, or ``out`` with ``y`` in it, as NumPy's functions do with an ``out`` that they get.

    A tensor ``out`` becomes the new value on the tape. Raises ShapeError and DtypeError where ``y``
    does not fit, GradientError for an array that would lose a gradient.
    """
    if type(out) is tuple:
        (out,) = out
    if out is None or out is Ellipsis:
        return y
    if not hasattr(out, "shape") or not hasattr(out, "dtype"):
        raise TypeError(f"{name}: out must be a tensor or an array; got {type(out).__name__}")
    if tuple(out.shape) != shape_of(y):
        raise ShapeError(f"{name}: the result has shape {shape_of(y)}, and out {tuple(out.shape)}")
    if not _casts(y.dtype, out.dtype):
        raise DtypeError(f"{name}: the result is {y.dtype}, which out, {out.dtype}, does not hold")
    if not hasattr(out, "node") and getattr(y, "node", None) is not None and current_mode().grad:
        raise GradientError(
            f"{name}: out is an array, which has no gradient; give a tensor, or .detach() what the "
            "result is computed from"
        )
    out[...] = y if hasattr(out, "node") or not hasattr(y, "node") else y.numpy()
    return out


def _casts(kind: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    if kind in dtypes.FLOATS:
        return wanted in dtypes.INEXACT
    return wanted in dtypes.INEXACT or np.can_cast(kind, wanted, "same_kind")


def lined(name: str, x: Any, axis: Axis) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """``x`` with the axes ``axis`` made one, the last; these axes, and the shape with them of
    size 1."""
    shape = shape_of(x)
    axes = normalize_axes(name, axis, x)
    rest = tuple(i for i in range(len(shape)) if i not in axes)
    n = math.prod(shape[i] for i in axes)
    kept = tuple(1 if i in axes else m for i, m in enumerate(shape))
    if rest + axes != tuple(range(len(shape))):
        x = permute_dims(x, rest + axes)
    return reshape(x, (*[shape[i] for i in rest], n)), axes, kept


def at_hand(x: Any) -> Any:
    """The numbers of ``x`` for a check, as an array of the host.

    ``None`` while programs are recorded or operations observed, which must not see a reading.
    """
    if not hasattr(x, "node"):
        return np.asarray(x)
    return None if current_mode().observers else x.detach().numpy()


def integer(name: str, what: str, value: Any) -> int:
    """``value`` as an integer. Raises TypeError for what is none."""
    try:
        found: int = value.__index__()
    except (AttributeError, TypeError):
        raise TypeError(f"{name}: {what} must be an integer; got {value!r}") from None
    return found


# --- functions without gradient -------------------------------------------------------------------


def _plain_value(
    xp: Any,
    *arrays: Any,
    function: str,
    more: tuple[Any, ...],
    options: tuple[tuple[str, Any], ...],
    part: int | None,
) -> Any:
    found = getattr(xp, function)(*arrays, *more, **dict(options))
    return found if part is None else found[part]


# The functions of NumPy and CuPy whose results are counts, places or truth values.
_PLAIN = Primitive("plain", _plain_value, {"*arrays": None})


def plain(
    function: str,
    arrays: Sequence[Any],
    more: Sequence[Any] = (),
    part: int | None = None,
    **options: Any,
) -> Any:
    """What the ``function`` of NumPy (or CuPy) gives for some arrays; nothing is recorded.

    more, options: its other arguments, by position and by name. part: which of several results.
    """
    attrs = {
        "function": function,
        "more": tuple(more),
        "options": tuple(options.items()),
        "part": part,
    }
    return apply(_PLAIN, tuple(as_array(x) for x in arrays), attrs)
