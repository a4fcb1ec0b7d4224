"""What the array API standard lets one ask: of dtypes, of their limits, and of the library."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.errors import DtypeError
from tensorgrad.ops.creation import asarray
from tensorgrad.tape import NUMBERS

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "__array_namespace_info__", "astype", "can_cast", "finfo", "iinfo", "isdtype", "result_type",
]  # fmt: skip

_KINDS: dict[str, frozenset[np.dtype[Any]]] = {
    "bool": frozenset({dtypes.bool}),
    "signed integer": frozenset(d for d in dtypes.INTEGERS if d.kind == "i"),
    "unsigned integer": frozenset(d for d in dtypes.INTEGERS if d.kind == "u"),
    "integral": dtypes.INTEGERS,
    "real floating": dtypes.FLOATS,
    "complex floating": dtypes.COMPLEX,
    "numeric": dtypes.INTEGERS | dtypes.INEXACT,
}


class FloatLimits(NamedTuple):
    """The limits of a floating dtype, as ``finfo`` gives them."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: np.dtype[Any]


class IntegerLimits(NamedTuple):
    """The limits of an integer dtype, as ``iinfo`` gives them."""

    bits: int
    max: int
    min: int
    dtype: np.dtype[Any]


def _dtype_of(what: Any) -> np.dtype[Any]:
    """The dtype of a tensor or an array, or the one that ``what`` stands for."""
    found = getattr(what, "dtype", None)
    return dtypes.as_dtype(found if isinstance(found, np.dtype) else what)


def isdtype(dtype: Any, kind: Any) -> builtins.bool:
    """Whether ``dtype`` is of a kind.

    kind: a dtype; or "bool", "signed integer", "unsigned integer", "integral", "real floating",
        "complex floating" or "numeric"; or a tuple of these, of which one has to hold.

    Raises ValueError for another word.
    """
    wanted = dtypes.as_dtype(dtype)
    for one in kind if isinstance(kind, tuple) else (kind,):
        if isinstance(one, str):
            if one not in _KINDS:
                raise ValueError(f"isdtype: a kind is one of {', '.join(_KINDS)}; got {one!r}")
            if wanted in _KINDS[one]:
                return True
        elif wanted == dtypes.as_dtype(one):
            return True
    return False


def finfo(type: Any, /) -> FloatLimits:
    """The limits of a floating dtype, or of that of a tensor; of a complex one those of its parts.

    Raises DtypeError for any other.
    """
    dtype = dtypes.real_of(_dtype_of(type))
    if dtype not in dtypes.FLOATS:
        raise DtypeError(f"finfo: a floating dtype is needed, not {dtype}; of integers ask iinfo")
    limits: Any = ml_dtypes.finfo
    found = limits(dtype)
    eps, most, least = float(found.eps), float(found.max), float(found.min)
    return FloatLimits(int(found.bits), eps, most, least, float(found.smallest_normal), dtype)


def iinfo(type: Any, /) -> IntegerLimits:
    """The limits of an integer dtype, or of that of a tensor.

    Raises DtypeError for any other.
    """
    dtype = _dtype_of(type)
    if dtype not in dtypes.INTEGERS:
        raise DtypeError(f"iinfo: an integer dtype is needed, not {dtype}; of floats ask finfo")
    found = np.iinfo(dtype)
    return IntegerLimits(found.bits, int(found.max), int(found.min), dtype)


def result_type(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    """The dtype of what is computed from these: tensors, arrays, dtypes, and numbers beside them.

    Raises ValueError if there is nothing but numbers, DtypeError for dtypes that do not mix.
    """
    numbers = [x.item() if isinstance(x, np.generic) else x for x in arrays_and_dtypes]
    scalars = [x for x in numbers if type(x) in NUMBERS]
    others = [_dtype_of(x) for x in numbers if type(x) not in NUMBERS]
    if not others:
        raise ValueError("result_type: at least one tensor or dtype is needed")
    return dtypes.promote(others, scalars)


def can_cast(from_: Any, to: Any, /) -> builtins.bool:
    """Whether a dtype, or that of a tensor, beside the dtype ``to`` gives ``to``."""
    wanted = dtypes.as_dtype(to)
    try:
        return dtypes.promote([_dtype_of(from_), wanted]) == wanted
    except DtypeError:
        return False


def astype(x: Any, dtype: Any, /, *, copy: builtins.bool = True, device: Any = None) -> Tensor:
    """``x`` with another dtype; gradients are cast back.

    copy: False gives ``x`` itself if it has the dtype already. device: where the result shall lie.
    """
    found: Tensor = asarray(x).to(device=device, dtype=dtype)
    return found.clone() if copy and found is x else found


class NamespaceInfo:
    """What the library offers, as the array API standard has it asked."""

    def capabilities(self) -> dict[str, Any]:
        """What not every library of the standard has."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """The device of new tensors."""
        return backend.default_device()

    def devices(self) -> tuple[str, ...]:
        """The devices that there are."""
        if not backend.cuda_is_available():
            return ("cpu",)
        count = backend.cuda_backend().xp.cuda.runtime.getDeviceCount()
        return ("cpu", *(f"cuda:{i}" for i in range(count)))

    def default_dtypes(self, *, device: str | None = None) -> dict[str, np.dtype[Any]]:
        """The dtypes of what is made without one; they are the same on every device."""
        backend.normalize(device)
        return {
            "real floating": dtypes.get_default_dtype(),
            "complex floating": dtypes.complex_of(dtypes.get_default_dtype()),
            "integral": dtypes.int64,
            "indexing": dtypes.int64,
        }

    def dtypes(
        self, *, device: str | None = None, kind: str | tuple[str, ...] | None = None
    ) -> dict[str, np.dtype[Any]]:
        """The standard's dtypes by name, or those of a kind; there are float16 and bfloat16 too."""
        backend.normalize(device)
        found = sorted(dtypes.ALL - dtypes.HALVES, key=str)
        return {str(d): d for d in found if kind is None or isdtype(d, kind)}


def __array_namespace_info__() -> NamespaceInfo:  # noqa: N807
    """What the library offers: devices, dtypes and capabilities."""
    return NamespaceInfo()
