"""Window functions with the names and arguments of ``scipy.signal.windows``: constant vectors.

Each takes the number of points ``M``, its own parameters, and ``sym``: True for a symmetric window,
as filters want it; False for a periodic one, as spectra want it: the symmetric one of ``M + 1``
points without its last. Computed in float64 and rounded once to ``dtype`` (by default the default
dtype).

Raises ValueError for ``M`` below 0.

F. J. Harris, On the use of windows for harmonic analysis with the discrete Fourier transform,
Proceedings of the IEEE 66 (1978); A. H. Nuttall, Some windows with very good sidelobe behavior,
IEEE Transactions on Acoustics, Speech, and Signal Processing 29 (1981).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.ops.creation import asarray
from tensorgrad.tensor import Tensor

__all__ = [
    "bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine",
    "general_hamming", "hamming", "hann", "kaiser", "nuttall",
]  # fmt: skip

Values = np.ndarray[Any, np.dtype[np.float64]]


def _window(
    name: str, M: int, sym: bool, dtype: Any, device: str | None, values: Callable[[int], Values]
) -> Tensor:
    """``values(n)`` has the n points of a symmetric window, n above 1."""
    if M < 0:
        raise ValueError(f"{name}: M must be the number of points, 0 or more; got {M}")
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    points = np.ones(M) if M < 2 else values(M if sym else M + 1)[:M]
    return asarray(points.astype(wanted), device=device)


def _cosines(coefficients: Sequence[float]) -> Callable[[int], Values]:
    """Alternating sums of cosines of multiples of an angle that goes around once."""

    def values(n: int) -> Values:
        angle = np.linspace(-math.pi, math.pi, n)
        terms = [c * np.cos(k * angle) for k, c in enumerate(coefficients)]
        return np.sum(terms, axis=0)

    return values


def general_cosine(
    M: int, a: Sequence[float], sym: bool = True, *, dtype: Any = None, device: str | None = None
) -> Tensor:
    """``a[0] - a[1] cos(t) + a[2] cos(2 t) - ...`` for t from 0 to 2 pi."""
    return _window("general_cosine", M, sym, dtype, device, _cosines(a))


def general_hamming(
    M: int, alpha: float, sym: bool = True, *, dtype: Any = None, device: str | None = None
) -> Tensor:
    """``alpha - (1 - alpha) cos(t)`` for t from 0 to 2 pi."""
    return _window("general_hamming", M, sym, dtype, device, _cosines([alpha, 1.0 - alpha]))


def hamming(
    M: int, sym: bool = True, *, dtype: Any = None, device: str | None = None
) -> Tensor:  # fmt: skip
    """``0.54 - 0.46 cos(t)`` for t from 0 to 2 pi."""
    return _window("hamming", M, sym, dtype, device, _cosines([0.54, 0.46]))


def hann(M: int, sym: bool = True, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """``0.5 - 0.5 cos(t)`` for t from 0 to 2 pi."""
    return _window("hann", M, sym, dtype, device, _cosines([0.5, 0.5]))


def blackman(
    M: int, sym: bool = True, *, dtype: Any = None, device: str | None = None
) -> Tensor:  # fmt: skip
    """``0.42 - 0.5 cos(t) + 0.08 cos(2 t)`` for t from 0 to 2 pi."""
    return _window("blackman", M, sym, dtype, device, _cosines([0.42, 0.5, 0.08]))


def nuttall(M: int, sym: bool = True, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """Nuttall's window of four terms with the smallest sidelobes."""
    terms = [0.3635819, 0.4891775, 0.1365995, 0.0106411]
    return _window("nuttall", M, sym, dtype, device, _cosines(terms))


def bartlett(
    M: int, sym: bool = True, *, dtype: Any = None, device: str | None = None
) -> Tensor:  # fmt: skip
    """A triangle, 0 at both ends."""
    return _window("bartlett", M, sym, dtype, device, np.bartlett)


def cosine(M: int, sym: bool = True, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """Half a period of a sine, at the middles of ``M`` equal pieces."""
    return _window(
        "cosine", M, sym, dtype, device, lambda n: np.sin(math.pi / n * (np.arange(n) + 0.5))
    )


def exponential(
    M: int, center: float | None = None, tau: float = 1.0, sym: bool = True, *,
    dtype: Any = None, device: str | None = None,
) -> Tensor:  # fmt: skip
    """``exp(-abs(n - center) / tau)``; without ``center`` around the middle.

    Raises ValueError if a symmetric window is given another center, or ``tau`` is not above 0.
    """
    if sym and center is not None:
        raise ValueError("exponential: a symmetric window lies around its middle; give sym=False")
    if tau <= 0:
        raise ValueError(f"exponential: tau must be above 0; got {tau}")

    def values(n: int) -> Values:
        middle = (n - 1) / 2 if center is None else center
        return np.exp(-np.abs(np.arange(n) - middle) / tau)

    return _window("exponential", M, sym, dtype, device, values)


def gaussian(
    M: int, std: float, sym: bool = True, *, dtype: Any = None, device: str | None = None
) -> Tensor:
    """``exp(-(n - middle)^2 / (2 std^2))``. Raises ValueError if ``std`` is not above 0."""
    if std <= 0:
        raise ValueError(f"gaussian: std must be above 0; got {std}")
    return _window(
        "gaussian", M, sym, dtype, device,
        lambda n: np.exp(-(((np.arange(n) - (n - 1) / 2) / std) ** 2) / 2),
    )  # fmt: skip


def kaiser(
    M: int, beta: float, sym: bool = True, *, dtype: Any = None, device: str | None = None
) -> Tensor:
    """``I0(beta sqrt(1 - t^2)) / I0(beta)`` for t from -1 to 1."""
    return _window("kaiser", M, sym, dtype, device, lambda n: np.kaiser(n, beta))
