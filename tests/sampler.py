"""Draws the arguments of the table's cases, and turns them into the variants that tests need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from tensorgrad import Tensor, backend
from tensorgrad.ops.table import Operation

Array = np.ndarray[Any, Any]


def _walk(value: Any, change: Callable[[Array], Any]) -> Any:
    """``value`` with every array in it, however deep in lists and tuples, replaced."""
    if isinstance(value, np.ndarray):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_walk(v, change) for v in value)
    return value


@dataclass(frozen=True)
class Call:
    """The arguments of one call. Arrays may lie anywhere in them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def map(self, change: Callable[[Array], Any], *, floats: bool = True) -> Call:
        """The call with every floating array (or, without ``floats``, every array) changed."""

        def one(a: Array) -> Any:
            return change(a) if not floats or a.dtype == np.float64 else a

        return Call(
            tuple(_walk(a, one) for a in self.args),
            {k: _walk(v, one) for k, v in self.kwargs.items()},
        )

    def arrays(self, *, floats: bool = True) -> list[Array]:
        """The floating arrays (or all arrays) in the order of the arguments."""
        found: list[Array] = []

        def note(a: Array) -> Array:
            found.append(a)
            return a

        self.map(note, floats=floats)
        return found

    def replace(self, arrays: Sequence[Array]) -> Call:
        """The call with its floating arrays replaced by others, in order."""
        following = iter(arrays)
        return self.map(lambda _: next(following))

    def tensors(
        self, device: str = "cpu", dtype: Any = None, requires_grad: bool = False
    ) -> tuple[Call, list[Tensor]]:
        """The call with tensors for arrays, and the tensors made of floating arrays."""
        leaves: list[Tensor] = []

        def convert(a: Array) -> Tensor:
            if a.dtype != np.float64:
                return Tensor(a, device=device)
            x = Tensor(a, dtype=dtype, device=device, requires_grad=requires_grad)
            leaves.append(x)
            return x

        return self.map(convert, floats=False), leaves

    def of(self, function: Callable[..., Any]) -> Any:
        """What ``function`` makes of these arguments."""
        return function(*self.args, **self.kwargs)


class Sampler:
    """Implements the table's Sampler protocol from seeded random numbers."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, *args: Any, **kwargs: Any) -> Call:
        return Call(args, kwargs)

    def real(
        self, *shape: int, low: float = -2.0, high: float = 2.0, avoid: float | None = None
    ) -> Array:
        x = self._rng.uniform(low, high, shape)
        if avoid is not None:
            near = np.abs(x - avoid) < 0.05
            away = np.where(x < avoid, avoid - 0.1, avoid + 0.1)
            outside = np.where((away < low) | (away > high), 2 * avoid - away, away)
            x = np.where(near, outside, x)
        return np.asarray(x, np.float64)

    def distinct(self, *shape: int) -> Array:
        n = int(np.prod(shape))
        steps = np.arange(n) - (n - 1) / 2
        return np.asarray(self._rng.permutation(steps).reshape(shape) * 0.25)

    def ints(self, *shape: int, high: int) -> Array:
        return np.asarray(self._rng.integers(0, high, shape), np.int64)

    def bools(self, *shape: int) -> Array:
        return np.asarray(self._rng.random(shape) < 0.5)


def draw(row: Operation, number: int) -> Call:
    """The call of case ``number`` of a row; the same in every run."""
    call: Call = row.cases[number](Sampler(crc32(f"{row.name}-{number}".encode())))
    return call


# --- layouts: the same values in memory of another shape ------------------------------------------


@dataclass(frozen=True)
class Layout:
    """``view(prepare(a), a.shape)`` has the values of ``a`` and other strides."""

    name: str
    prepare: Callable[[Array], Array]
    view: Callable[[Any, tuple[int, ...]], Any]

    def tensor(self, a: Array, device: str) -> Tensor:
        """``a`` as a tensor on ``device`` with this layout there."""
        if not a.ndim:
            return Tensor(a, device=device)
        x = Tensor(self.prepare(a), device=device)
        x.data = self.view(x.data, a.shape)
        return x


def _reversed(a: Any, shape: tuple[int, ...] = ()) -> Any:
    return a[(slice(None, None, -1),) * a.ndim]


def _every_second(a: Any, shape: tuple[int, ...] = ()) -> Any:
    return a[(slice(None, None, 2),) * a.ndim]


def _spaced(a: Array) -> Array:
    big = np.ones([2 * n for n in a.shape], a.dtype)
    big[(slice(None, None, 2),) * a.ndim] = a
    return big


def _transposed(a: Any, shape: tuple[int, ...] = ()) -> Any:
    return a.T


def _repeated(a: Any, shape: tuple[int, ...]) -> Any:
    return backend.of(a).xp.broadcast_to(a, shape)


LAYOUTS = [
    Layout("strided", _spaced, _every_second),
    Layout("reversed", lambda a: np.ascontiguousarray(_reversed(a)), _reversed),
    Layout("fortran", lambda a: np.ascontiguousarray(a.T), _transposed),
]

# Stride 0. Only for arrays that are constant along the last axis.
REPEATED = Layout("repeated", lambda a: a[..., :1].copy(), _repeated)


def outputs(result: Any) -> list[Any]:
    """The results of an operation as a flat list, whether it returns one or several."""
    if isinstance(result, tuple | list):
        return [x for r in result for x in outputs(r)]
    return [result]


def host(x: Any) -> Array:
    """The values of a tensor, an array or a number in a NumPy array."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
