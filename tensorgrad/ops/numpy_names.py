"""NumPy's functions called on tensors: which of ours mean the same, and what they take.

A function is known by itself and not by its name: ``np.trace``, ``np.linalg.trace`` and
``np.ma.trace`` are three. An argument that has no counterpart is refused unless it has its default.
"""

from __future__ import annotations

import math
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from tensorgrad import ops
from tensorgrad.dtypes import INEXACT, as_dtype
from tensorgrad.errors import DtypeError
from tensorgrad.ops import numpy_modules, numpy_reductions, padding_modes, products, ranges
from tensorgrad.ops.choosing import in_range
from tensorgrad.ops.numpy_forms import as_array, placed
from tensorgrad.ops.products import of_truth_values
from tensorgrad.ops.shaping import shape_of
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.tape import cast

Function = Callable[..., Any]

# --- functions whose arguments mean something else ------------------------------------------------


def _of_all(function: Function) -> Function:
    """For several arrays at once, as ``np.atleast_1d`` takes them."""

    def call(*arys: Any) -> Any:
        found = tuple(function(x) for x in arys)
        return found[0] if len(found) == 1 else found

    return call


def _flat_without_axis(function: Function) -> Function:
    """``function``, to which no axis means the flattened array."""

    def call(x: Any, *more: Any, axis: int | None, **options: Any) -> Any:
        if axis is None:
            x, axis = ops.reshape(x, (-1,)), 0
        return function(x, *more, axis=axis, **options)

    return call


def _clip(a: Any, a_min: Any = None, a_max: Any = None, min: Any = None, max: Any = None) -> Any:
    if (a_min is not None and min is not None) or (a_max is not None and max is not None):
        raise ValueError("np.clip: give a limit once, as a_min or as min")
    return ops.clip(a, min if a_min is None else a_min, max if a_max is None else a_max)


def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        return ops.nonzero(condition)
    return ops.where(condition, x, y)


def _einsum(*operands: Any, dtype: Any = None) -> Any:
    if dtype is not None:
        wanted = as_dtype(dtype)
        for x in operands:
            if hasattr(x, "shape") and x.dtype in INEXACT and wanted not in INEXACT:
                raise DtypeError(
                    f"einsum: dtype={wanted} would cut off what operands of {x.dtype} have beyond "
                    "whole numbers; convert them yourself, x.astype(...)"
                )
        operands = tuple(cast(x, wanted) if hasattr(x, "shape") else x for x in operands)
    return of_truth_values(ops.einsum(*operands), *[x for x in operands if hasattr(x, "dtype")])


def _transpose(x: Any, axes: Any = None) -> Any:
    return ops.transpose(x) if axes is None else ops.transpose(x, tuple(axes))


def _take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    if mode != "raise":
        n = _size(a, axis)
        indices = in_range("np.take", as_array(indices), n, mode)
    return ops.take(a, indices, axis=axis)


def _split(x: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    return list(ops.split(x, indices_or_sections, axis))


def _reciprocal(x: Any) -> Any:
    if getattr(x, "dtype", None) not in INEXACT:
        raise TypeError(
            "np.reciprocal: of integers it is 0 in NumPy but for 1 and -1; write 1 / x, or "
            "tg.reciprocal(x)"
        )
    return ops.reciprocal(x)


def _size(a: Any, axis: Any = None) -> int:
    shape = shape_of(a)
    if axis is None:
        return math.prod(shape)
    axes = ops.shaping.normalize_axes("np.size", axis, a)
    return math.prod(shape[k] for k in axes)


def _i0(x: Any) -> Any:
    from tensorgrad.ops.bessel_functions import i0  # loaded where it is used

    return i0(x)


def _sinc(x: Any) -> Any:
    from tensorgrad.ops.entropies import sinc  # loaded where it is used

    return sinc(x)


def _eye(N: Any, M: Any = None, **options: Any) -> Any:
    return ops.eye(N, M, **options)


# --- the table ------------------------------------------------------------------------------------

_REDUCTIONS = ["all", "amax", "amin", "any", "max", "mean", "min", "prod", "std", "sum", "var"]
# NumPy's name, our function, and NumPy's arguments in its order: "a" is handed on, "axis=" where it
# is given, "axis=-1" with this default; "!out" gets the result, "!order=C" has to be absent or "C";
# "~kind" changes nothing; "*arys" are all that are left. Here is what the rows of the operations
# do not say themselves: where arguments mean something else, and other names.
_ROWS: tuple[tuple[str, Function, str], ...] = (
    ("argsort", _flat_without_axis(ops.argsort), "a axis=-1 ~kind !order ~stable"),
    ("astype", ops.astype, "x dtype copy= device="),
    ("atleast_1d", _of_all(ops.atleast_1d), "*arys"),
    ("atleast_2d", _of_all(ops.atleast_2d), "*arys"),
    ("can_cast", ops.can_cast, "from_ to !casting=safe"),
    ("clip", _clip, "a a_min= a_max= !out min= max="),
    ("cumprod", _flat_without_axis(ops.cumulative_prod), "a axis=None dtype= !out"),
    ("cumsum", _flat_without_axis(ops.cumulative_sum), "a axis=None dtype= !out"),
    ("einsum", _einsum, "*operands !out ~optimize dtype= ~casting ~order"),
    ("einsum_path", ops.einsum_path, "*operands optimize= !einsum_call"),
    ("empty_like", ops.empty_like, "prototype dtype= !order=K ~subok !shape device="),
    ("eye", _eye, "N M= k= dtype= !order=C device="),
    ("linspace", ranges.linspace, ""),
    ("pad", padding_modes.by_numpys_arguments, ""),
    ("take", _take, "a indices axis= !out mode="),
    ("permute_dims", _transpose, "a axes="),
    ("ndim", lambda a: len(shape_of(a)), "a"),
    ("shape", shape_of, "a"),
    ("size", _size, "a axis="),
    ("sort", _flat_without_axis(ops.sort), "a axis=-1 ~kind !order ~stable"),
    ("result_type", ops.result_type, "*arrays_and_dtypes"),
    ("i0", _i0, "x"),
    ("sinc", _sinc, "x"),
    ("split", _split, "ary indices_or_sections axis="),
    *[
        (name, getattr(numpy_reductions, {"amax": "max", "amin": "min"}.get(name, name)), "")
        for name in _REDUCTIONS
    ],
    ("take_along_axis", _flat_without_axis(ops.take_along_axis), "arr indices axis=-1"),
    ("transpose", _transpose, "a axes="),
    ("unique_all", ops.unique_all, "x"),
    ("unique_counts", ops.unique_counts, "x"),
    ("unique_inverse", ops.unique_inverse, "x"),
    ("where", _where, "condition x= y="),
    ("linalg.vecdot", products.vecdot, "x1 x2 axis="),
)


@cache
def functions() -> Mapping[Function, tuple[str, Function, str]]:
    """NumPy's functions that have a counterpart, with their rows; not those of its ufuncs.

    Where the arguments are empty they are NumPy's own.
    """
    found = {}
    rows = [
        (name, row.function, row.numpy)
        for row in OPERATIONS.values()
        if row.numpy
        for name in (row.name, *row.aliases)
    ]
    rows += [(name, getattr(numpy_modules, name), "") for name in vars(numpy_modules)["__all__"]]
    from tensorgrad.ops.numpy_linalg import ROWS  # loaded where NumPy's functions are called

    for row in (*rows, *_ROWS, *ROWS):
        of: Any = np
        for part in row[0].split("."):
            of = getattr(of, part, None)
        # Else this NumPy is older, or the name not its own; ufuncs ask in another way.
        if callable(of) and not isinstance(of, np.ufunc):
            found[of] = row
    return found


@cache
def ufuncs() -> Mapping[np.ufunc, Function]:
    """NumPy's ufuncs that have a counterpart, with it."""
    found = {}
    for row in OPERATIONS.values():
        for name in (row.name, *row.aliases, row.reference):
            function = getattr(np, name, None) if isinstance(name, str) else None
            if isinstance(function, np.ufunc):
                found[function] = row.function
    for name in vars(numpy_modules)["__all__"]:
        function = getattr(np, name, None)
        if isinstance(function, np.ufunc):
            found[function] = getattr(numpy_modules, name)
    found.update({np.vecdot: products.vecdot, np.reciprocal: _reciprocal})
    return found


#: What looks at numbers, or writes them down: NumPy's own function is given the arrays.
_OF_ARRAYS = frozenset(
    getattr(np, name)
    for name in (
        "array2string", "array_repr", "array_str", "common_type", "may_share_memory",
        "min_scalar_type", "save", "savetxt", "savez", "savez_compressed", "shares_memory",
    )
)  # fmt: skip


def _arrays_in(x: Any) -> Any:
    if hasattr(x, "node"):
        return x.detach().numpy()
    return type(x)(map(_arrays_in, x)) if type(x) in (list, tuple) else x


def call(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What ``function`` of NumPy gives for tensors among its arguments, with gradients.

    args, kwargs: as NumPy has accepted them.

    Raises TypeError if there is no counterpart, or none for an argument.
    """
    name = f"{function.__module__}.{function.__name__}".replace("numpy", "np", 1)
    if function.__module__ == "numpy.fft":
        from tensorgrad.ops import fourier  # loaded where it is used

        return getattr(fourier, function.__name__)(*args, **kwargs)
    if function in _OF_ARRAYS:
        return function(*_arrays_in(tuple(args)), **{k: _arrays_in(x) for k, x in kwargs.items()})
    row = functions().get(function)
    if row is None:
        raise TypeError(no_counterpart(name))
    _, ours, form = row
    if not form:  # it has NumPy's own arguments
        return ours(*args, **kwargs)
    rest, named = list(args), dict(kwargs)
    positional: list[Any] = []
    out = None
    options: dict[str, Any] = {}
    for token in form.split():
        mark = token[0] if token[0] in "!~*" else ""
        key, equals, default = token.lstrip("!~*").partition("=")
        if mark == "*":
            positional, rest = rest, []
            continue
        value = rest.pop(0) if rest else named.pop(key, np._NoValue)
        absent = value is np._NoValue
        if token == "!out":
            out = None if absent else value
        elif mark == "!":
            if not (absent or value is None or value is False or _is(value, default)):
                raise TypeError(
                    f"{name}: {key}={value!r} has no counterpart for tensors; leave it out, or "
                    "pass x.detach().numpy() if no gradient is wanted"
                )
        elif not mark and not equals:
            positional.append(value)
        elif not mark and (default or not absent):
            options[key] = literal_eval(default) if absent else value
    if rest or named:
        raise TypeError(f"{name}: {', '.join(named) or rest} has no counterpart for tensors")
    return placed(name, ours(*positional, **options), out)


def _is(value: Any, default: str) -> bool:
    """Whether an argument has its default; no array is compared."""
    return isinstance(value, int | str) and str(value) == default


def no_counterpart(name: str) -> str:
    """The message for a function of NumPy that has none."""
    return (
        f"{name} has no counterpart with gradients in tensorgrad; pass it x.detach().numpy() if "
        "none is wanted"
    )
