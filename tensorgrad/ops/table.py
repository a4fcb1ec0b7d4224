"""The table of operations: one row each, from which everything else about an operation follows.

A row is made where the operation is defined. It gives the function, the Tensor method, the cases
that the tests check (value, first and second gradient, dtypes, devices), the benchmark entry and
the line in the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from tensorgrad.dtypes import COMPLEX
from tensorgrad.ops.fast_paths import binary, unary
from tensorgrad.tape import Primitive, not_for_complex

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])


class Sampler(Protocol):
    """Draws the arguments of a case. The tests implement it; the arrays are float64 NumPy."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The call that the case stands for."""

    def real(self, *shape: int, low: float = -2.0, high: float = 2.0, avoid: float = ...) -> Any:
        """Numbers between ``low`` and ``high``, none within 0.05 of ``avoid`` (a kink)."""

    def distinct(self, *shape: int) -> Any:
        """Numbers of which no two are equal or close."""

    def ints(self, *shape: int, high: int) -> Any:
        """int64 numbers in [0, high)."""

    def bools(self, *shape: int) -> Any:
        """Truth values."""


Case = Callable[[Any], Any]


class Operation(NamedTuple):
    """A row. ``reference`` and ``torch`` name the function in NumPy and PyTorch that must agree.

    ``reference`` may also be a function of NumPy arrays. ``None`` means there is none.
    ``gradient`` is False where the result is an integer or a truth value, or constant.
    ``namespace`` is where it is found below ``tensorgrad``, as "nn.functional".
    ``numpy`` gives the arguments of NumPy's functions of its names, which it stands in for when
    they are called with tensors; see ``numpy_names``. The ufuncs need none.
    ``complex`` is whether it takes complex numbers. It is what the primitive says; where it is
    said to be False, whatever the function consists of, they are refused.
    """

    name: str
    function: Callable[..., Any]
    cases: Sequence[Case]
    reference: str | Callable[..., Any] | None
    torch: str | None
    gradient: bool
    method: bool
    elementwise: bool
    primitive: Primitive | None = None
    namespace: str = ""
    numpy: str = ""
    aliases: tuple[str, ...] = ()
    complex: bool = False

    @property
    def summary(self) -> str:
        """The first line of the documentation."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


OPERATIONS: dict[str, Operation] = {}


def enter_aliases(names: Mapping[str, Any]) -> None:
    """Enter in each row the further ``names`` by which its function is known."""
    for name, function in names.items():
        row = OPERATIONS.get(getattr(function, "__name__", ""))
        if row is not None and row.function is function and row.name != name:
            OPERATIONS[row.name] = row._replace(aliases=(*row.aliases, name))


def operation(
    *,
    cases: Sequence[Case],
    reference: str | Callable[..., Any] | None = "",
    torch: str | None = "",
    gradient: bool = True,
    method: bool = True,
    elementwise: bool | None = None,
    primitive: Primitive | None = None,
    namespace: str = "",
    numpy: str = "",
    complex: bool | None = None,
) -> Callable[[F], F]:
    """Enter the decorated function in the table. An empty ``reference`` or ``torch`` means the
    function of the same name, and ``elementwise`` is the primitive's unless another is given."""

    def enter(function: F) -> F:
        name = function.__name__
        if complex is False:
            function = _refusing(function)
        pointwise = elementwise
        if pointwise is None:
            pointwise = primitive is not None and primitive.elementwise
        OPERATIONS[name] = Operation(
            name,
            function,
            cases,
            name if reference == "" else reference,
            name if torch == "" else torch,
            gradient,
            method,
            pointwise,
            primitive,
            namespace,
            numpy,
            complex=(primitive is not None and bool(primitive.complex))
            if complex is None
            else complex,
        )
        return function

    return enter


def elementwise(
    name: str,
    value: Any,
    rule: Callable[..., Any] | None,
    doc: str,
    *,
    promotion: str = "float",
    low: float = -2.0,
    high: float = 2.0,
    avoid: float | None = None,
    cases: Sequence[Case] | None = None,
    kernel: str | None = None,
    moves: bool = False,
    fresh: bool | None = None,
    complex: bool | Primitive | None = None,
    **row: Any,
) -> Callable[[Any], Tensor]:
    """A row for an elementwise function of one argument; its tests draw from [low, high], unless
    there are ``cases``.

    complex: as in ``Primitive``; left out, whether NumPy's function takes complex numbers, where
        the value is the name of one.
    """
    if complex is None and isinstance(value, str):
        complex = any(kinds.startswith("D") for kinds in getattr(np, value).types)
    op = Primitive(
        name,
        value,
        {"x": rule},
        promotion=promotion,
        half_in_float32=True,
        kernel=kernel,
        elementwise=True,
        moves=moves,
        fresh=fresh,
        complex=complex,
    )
    call = unary(op)
    _describe(call, name, doc)
    limits: dict[str, Any] = {"low": low, "high": high}
    if avoid is not None:
        limits["avoid"] = avoid
    row = {"gradient": rule is not None, **row}
    drawn = cases or [lambda s: s(s.real(3, 4, **limits))]
    return operation(cases=drawn, primitive=op, **row)(call)


def elementwise2(
    name: str,
    value: Any,
    rule1: Callable[..., Any] | None,
    rule2: Callable[..., Any] | None,
    doc: str,
    *,
    promotion: str = "same",
    first: Mapping[str, Any] | None = None,
    second: Mapping[str, Any] | None = None,
    cases: Sequence[Case] | None = None,
    complex: bool | Primitive | None = None,
    **row: Any,
) -> Callable[[Any, Any], Tensor]:
    """A row for an elementwise function of two arguments with broadcasting.

    ``first`` and ``second`` limit what the tests draw for each (``low``, ``high``, ``avoid``).
    """
    op = Primitive(
        name,
        value,
        {"x1": rule1, "x2": rule2},
        promotion=promotion,
        half_in_float32=True,
        elementwise=True,
        complex=complex,
    )
    call = binary(op)
    _describe(call, name, doc)
    one, two = first or {}, second or {}
    row = {"gradient": rule1 is not None or rule2 is not None, **row}
    return operation(
        cases=cases
        or [
            lambda s: s(s.real(3, 4, **one), s.real(3, 4, **two)),
            lambda s: s(s.real(2, 3, 1, **one), s.real(3, 4, **two)),
            lambda s: s(s.real(4, **one), s.real(**two)),
        ],
        primitive=op,
        **row,
    )(call)


def _refusing(function: F) -> F:
    """``function``, which consists of what takes complex numbers, refusing them."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        for x in args:
            if getattr(x, "dtype", None) in COMPLEX:
                raise not_for_complex(function.__name__)
        return function(*args, **options)

    return call  # type: ignore[return-value]


def _describe(call: Callable[..., Any], name: str, doc: str) -> None:
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
