"""``autocast``: matrix products in 16 bits inside a network of float32; and the reverse of it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from functools import wraps
from typing import Any, TypeVar

from tensorgrad import dtypes
from tensorgrad.errors import DtypeError
from tensorgrad.observers import AUTOCAST_DTYPE, AUTOCASTS
from tensorgrad.tape import not_for_complex


def autocast_dtype() -> Any:
    """The dtype that products are computed in here; ``None`` outside ``autocast``."""
    return AUTOCAST_DTYPE.get()


class autocast:
    """Inside, matrix products compute in 16 bits; losses, similarities and softmax in float32.

    dtype: "float16" or "bfloat16". enabled: False does nothing.

    The float32 operands of ``matmul`` and ``linear`` (and of what consists of them) are converted
    on the tape, where their rows say so (``Primitive.autocast``); parameters stay float32 and get
    float32 gradients: they are the master weights. Everything else follows the usual promotion, in
    which float32 beside 16 bits is float32. With "float16", small gradients vanish: see
    ``amp.GradScaler``. Use it around the forward pass and the loss, not around ``backward()``.
    After Micikevicius and others (2018), "Mixed precision training".

    Raises DtypeError for another dtype.
    """

    def __init__(self, dtype: Any = "bfloat16", enabled: bool = True) -> None:
        self.dtype = dtypes.as_dtype(dtype)
        if self.dtype not in dtypes.HALVES:
            raise DtypeError(f"autocast: the dtype must be float16 or bfloat16, not {self.dtype}")
        self.enabled = enabled
        self._tokens: list[Token[Any]] = []

    def __enter__(self) -> autocast:
        self._tokens.append(AUTOCAST_DTYPE.set(self.dtype if self.enabled else None))
        AUTOCASTS.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        AUTOCASTS.remove(self)
        AUTOCAST_DTYPE.reset(self._tokens.pop())


F = TypeVar("F", bound=Callable[..., Any])


def in_float32(function: F) -> F:
    """``function``, a composition of operations, in float32 where it is given 16 bits.

    The result is rounded once, to what its operands have in common: between the operations squares
    and sums would overflow, and each would round.
    """
    return _in_float32(function, False)


def loss_in_float32(function: F) -> F:
    """``in_float32`` for a loss or a similarity, which stays float32 inside ``autocast``.

    It refuses complex numbers: squares are not those of absolute values.
    """
    return _in_float32(function, True)


def _in_float32(function: F, loss: bool) -> F:
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        for x in (*args, *options.values()):
            dtype = getattr(x, "dtype", None)
            if dtype in dtypes.HALVES:
                break
            if loss and dtype in dtypes.COMPLEX:
                raise not_for_complex(function.__name__)
        else:
            return function(*args, **options)
        given = [getattr(x, "dtype", None) for x in (*args, *options.values())]
        y = function(
            *map(half_to_float32, args), **{k: half_to_float32(x) for k, x in options.items()}
        )
        if loss and AUTOCAST_DTYPE.get() is not None:
            return y
        common = dtypes.promote([d for d in given if d in dtypes.FLOATS], [])
        return y if y.dtype == common else y.astype(common)

    return call  # type: ignore[return-value]


def half_to_float32(x: Any) -> Any:
    """A 16-bit tensor or array as float32; anything else as it is."""
    return x.astype(dtypes.float32) if getattr(x, "dtype", None) in dtypes.HALVES else x
