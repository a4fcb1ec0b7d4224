"""Sets: the different elements of a tensor, and which elements are among others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tensorgrad.ops.shaping import reshape, shape_of
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["isin", "unique_all", "unique_counts", "unique_inverse"]


class UniqueAll(NamedTuple):
    """What ``unique_all`` gives."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """What ``unique_counts`` gives."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """What ``unique_inverse`` gives."""

    values: Tensor
    inverse_indices: Tensor


def _different_value(xp: Any, x: Any, what: str) -> Any:
    if what == "values":
        return xp.unique(x, equal_nan=False)
    return xp.unique(x, equal_nan=False, **{f"return_{what}": True})[1]


_DIFFERENT = Primitive(
    "unique", _different_value, {"x": None}, half_in_float32=True, data_dependent=True, complex=True
)


def _different(x: Any, what: str) -> Any:
    return apply(_DIFFERENT, (x,), {"what": what})


def unique_all(x: Any, /) -> UniqueAll:
    """The different elements of ``x`` in ascending order, and where they are.

    values: the elements; every NaN is one of its own. indices: where in the flattened ``x`` each is
    first. inverse_indices: for each element of ``x`` its number among the values. counts: how often
    each occurs. None of them has a gradient.
    """
    return UniqueAll(
        _different(x, "values"), _different(x, "index"), _inverse(x), _different(x, "counts")
    )


def unique_counts(x: Any, /) -> UniqueCounts:
    """The different elements of ``x``, and how often each occurs; see ``unique_all``."""
    return UniqueCounts(_different(x, "values"), _different(x, "counts"))


def unique_inverse(x: Any, /) -> UniqueInverse:
    """The different elements of ``x``, and the number of each of its elements among them."""
    return UniqueInverse(_different(x, "values"), _inverse(x))


def _inverse(x: Any) -> Any:
    return reshape(_different(x, "inverse"), shape_of(x))


_ISIN = Primitive(
    "isin",
    lambda xp, x1, x2, invert: xp.isin(x1, x2, invert=invert),
    {"x1": None, "x2": None},
    promotion="bool",
    half_in_float32=True,
    complex=True,
)


@operation(
    cases=[
        lambda s: s(s.ints(3, 4, high=9), s.ints(5, high=9)),
        lambda s: s(s.ints(4, high=9), s.ints(2, 2, high=9), invert=True),
        lambda s: s(s.ints(4, high=9), s.ints(0, high=9)),
    ],
    gradient=False,
    method=False,
    primitive=_ISIN,
    numpy="element test_elements !assume_unique invert= !kind",
)
def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Tensor:
    """Of each element of ``x1`` whether it is one of ``x2``; NaN is none of any.

    invert: whether it is not.
    """
    return apply(_ISIN, (x1, x2), {"invert": bool(invert)})
