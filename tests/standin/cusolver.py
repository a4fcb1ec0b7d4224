"""``cupy.linalg`` of the stand-in: NumPy's values, and what CuPy 14.2 refuses.

Without ``cupyx.errstate(linalg="raise")`` nobody looks at what cuSOLVER says, and where there is no
result there is garbage; with it the host waits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

#: What they take, in CuPy's words; ``test_linalg_on_cuda`` compares with a CuPy that is there.
SIGNATURES = {
    "cholesky": "a",
    "det": "a",
    "eig": "a",
    "eigh": "a UPLO=L",
    "eigvalsh": "a UPLO=L",
    "inv": "a",
    "qr": "a mode=reduced",
    "slogdet": "a",
    "solve": "a b",
    "svd": "a full_matrices=True compute_uv=True",
}
#: Those that say nothing of singular matrices.
_QUIET = ("det", "slogdet", "qr")
_STATE = {"linalg": "ignore"}


@contextmanager
def errstate(*, linalg: str) -> Iterator[None]:
    """``cupyx.errstate``."""
    before = dict(_STATE)
    _STATE["linalg"] = linalg
    try:
        yield
    finally:
        _STATE.update(before)


def linalg(standin: Any) -> ModuleType:
    """The module, for the module that holds the stand-in."""
    module = ModuleType("cupy.linalg")
    for name in SIGNATURES:
        module.__dict__[name] = _function(name, standin)
    module.__dict__["LinAlgError"] = np.linalg.LinAlgError
    return module


def signature(name: str) -> inspect.Signature:
    """The parameters of a function."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = []
    for part in SIGNATURES[name].split():
        key, _, text = part.partition("=")
        default = {"": inspect.Parameter.empty, "True": True}.get(text, text)
        parameters.append(inspect.Parameter(key, kind, default=default))
    return inspect.Signature(parameters)


def _function(name: str, standin: Any) -> Callable[..., Any]:
    known = signature(name)

    def function(*args: Any, **kwargs: Any) -> Any:
        given = known.bind(*args, **kwargs)
        given.apply_defaults()
        options = dict(given.arguments)
        arrays = [options.pop("a")] + ([options.pop("b")] if "b" in options else [])
        _check(name, arrays, standin.ndarray)
        if name not in _QUIET and _STATE["linalg"] == "raise":
            standin._waits(f"linalg.{name}")
        else:
            standin._not_captured(f"linalg.{name}")
        found = _computed(name, [x._a for x in arrays], options)
        if isinstance(found, tuple):
            return tuple(standin._launched(f"linalg.{name}", arrays, y) for y in found)
        return standin._launched(f"linalg.{name}", arrays, found)

    return function


def _check(name: str, arrays: list[Any], kind: Any) -> None:
    for x in arrays:
        if type(x) is not kind:
            raise TypeError(f"cupy.linalg.{name}: Unsupported type {type(x)}")
        if x.dtype.char not in "fdFD":
            raise TypeError(f"{x.dtype} is unsupported in linalg")
    a = arrays[0]
    if a.ndim < 2 or (name not in ("qr", "svd") and a.shape[-1] != a.shape[-2]):
        raise np.linalg.LinAlgError("Last 2 dimensions of the array must be square")
    if name == "solve" and a.shape[:-1] != arrays[1].shape[:-1]:
        raise ValueError("a must have (..., M, M) shape and b must have (..., M, K)")
    if name == "eig" and not a.size:
        raise ValueError("geev of nothing")


def _computed(name: str, arrays: list[Any], options: dict[str, Any]) -> Any:
    a = arrays[0]
    kind: Any = np.dtype(a.dtype.char.upper()) if name == "eig" else a.dtype
    try:
        found = getattr(np.linalg, name)(*arrays, **options)
    except np.linalg.LinAlgError:
        if _STATE["linalg"] == "raise":
            raise
        shape = arrays[-1].shape
        nothing = np.full(shape, 1e9, kind)
        return (nothing[..., 0], nothing) if name in ("eig", "eigh", "svd") else nothing
    if isinstance(found, tuple):
        return tuple(np.asarray(y).astype(kind) if name == "eig" else np.asarray(y) for y in found)
    return np.asarray(found)
