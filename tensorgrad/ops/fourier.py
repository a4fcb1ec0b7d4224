"""Discrete Fourier transforms: the array API standard's and NumPy's, by pocketfft or cuFFT.

Three primitives compute all of them, each along axes that have their lengths already: complex to
complex, real to half a spectrum, and back. Their matrices are symmetric but for what stands for
two numbers in half a spectrum, and gradients are transposes: so a complex transform is its own
rule, and the other two are each other's, with weights. Cutting and padding to length are
operations before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.complex_parts import conj
from tensorgrad.ops.creation import asarray
from tensorgrad.ops.indexing import beside
from tensorgrad.ops.numpy_forms import integer
from tensorgrad.ops.padding import pad
from tensorgrad.ops.shaping import along, normalize_axes, normalize_axis, roll, shape_of, sliced
from tensorgrad.tape import Primitive, apply, cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2",
    "ifftn", "ifftshift", "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft",
    "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

Lengths = int | Sequence[int] | None

#: the norm of the transform that goes back with the scale of this one
_OTHER = {"backward": "forward", "ortho": "ortho", "forward": "backward"}


def _flops(count: float, sizes: Sequence[int]) -> int:
    """Those of transforms of ``count`` complex numbers along axes of ``sizes``."""
    return int(sum(5 * count * math.log2(max(n, 2)) for n in sizes))


# --- the primitives -------------------------------------------------------------------------------


def _complex_value(xp: Any, x: Any, axes: tuple[int, ...], inverse: bool, norm: str) -> Any:
    if len(axes) == 1:
        return (xp.fft.ifft if inverse else xp.fft.fft)(x, axis=axes[0], norm=norm)
    return (xp.fft.ifftn if inverse else xp.fft.fftn)(x, axes=axes, norm=norm)


_COMPLEX: Primitive = Primitive(
    "fft",
    _complex_value,
    {"x": lambda g, axes, inverse, norm: _transformed(g, axes, inverse, norm)},
    promotion="same",
    fresh=True,
    flops=lambda x, out: _flops(out.size, x.shape),
    complex=True,
)


def _transformed(x: Any, axes: tuple[int, ...], inverse: bool, norm: str) -> Any:
    return apply(_COMPLEX, (x,), {"axes": axes, "inverse": inverse, "norm": norm})


_HALF: Primitive = Primitive(
    "rfft",
    lambda xp, x, axis, norm: xp.fft.rfft(x, axis=axis, norm=norm),
    {
        # Of the transpose's sum each number that stands for two comes once: irfft counts it twice.
        "x": lambda g, x_shape, axis, norm: _from_half(
            conj(g) / _counts(g, x_shape[axis], axis), x_shape[axis], axis, _OTHER[norm]
        )
    },
    promotion="float",
    half_in_float32=True,
    fresh=True,
    flops=lambda x, out: _flops(out.size, x.shape),
)
_FROM_HALF: Primitive = Primitive(
    "irfft",
    lambda xp, x, n, axis, norm: xp.fft.irfft(x, n, axis=axis, norm=norm),
    {
        "x": lambda g, n, axis, norm: (
            conj(apply(_HALF, (g,), {"axis": axis, "norm": _OTHER[norm]})) * _counts(g, n, axis)
        )
    },
    promotion="same",
    fresh=True,
    flops=lambda x, out: _flops(x.size, out.shape),
    complex=True,
)


def _from_half(x: Any, n: int, axis: int, norm: str) -> Any:
    return apply(_FROM_HALF, (x,), {"n": n, "axis": axis, "norm": norm})


def _counts(like: Any, n: int, axis: int) -> Any:
    """For how many numbers of a spectrum of ``n`` each of its half stands: one or two."""
    counts = np.full(n // 2 + 1, 2.0, dtypes.real_of(like.dtype))
    counts[0] = 1.0
    if n % 2 == 0:
        counts[-1] = 1.0
    shape = [1] * len(like.shape)
    shape[axis] = len(counts)
    return beside(like, counts.reshape(shape))


# --- along one axis -------------------------------------------------------------------------------


def _norm(name: str, norm: Any) -> str:
    if norm is None:
        return "backward"
    if norm not in _OTHER:
        raise ValueError(f"{name}: norm must be one of {', '.join(_OTHER)}; got {norm!r}")
    return str(norm)


def _length(name: str, n: Any, size: int) -> int:
    """The length of a transform, ``size`` if ``n`` is ``None``. Raises ValueError below 1."""
    found = size if n is None else integer(name, "the length of a transform", n)
    if found < 1:
        raise ValueError(f"{name}: a transform has at least one point; got {found}")
    return found


def _sized(x: Any, n: int, axis: int) -> Any:
    """``x`` with ``n`` elements along ``axis``: its first, or with zeros behind."""
    size = shape_of(x)[axis]
    if n < size:
        return sliced(x, along(axis, (None, n, None)))
    if n == size:
        return x
    widths = [(0, 0)] * len(shape_of(x))
    widths[axis] = (0, n - size)
    return pad(x, widths)


def _prepared(name: str, x: Any, real: bool = False) -> Any:
    """``x`` as a tensor: of complex numbers, or of real ones, of 32 bits each at least."""
    x = asarray(x)
    if not x.shape:
        raise ShapeError(f"{name}: an axis to transform is needed; got a tensor of shape ()")
    if real:
        return x
    return x if x.dtype in dtypes.COMPLEX else cast(x, dtypes.complex_of(x.dtype))


def _one(name: str, x: Any, n: Any, axis: int, norm: Any, inverse: bool) -> Any:
    x = _prepared(name, x)
    place = normalize_axis(name, axis, x)
    x = _sized(x, _length(name, n, x.shape[place]), place)
    return _transformed(x, (place,), inverse, _norm(name, norm))


def fft(x: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Tensor:
    """The discrete Fourier transform along ``axis``: ``sum(x[j] * exp(-2j * pi * j * k / n))``.

    n: the length; what is longer is cut off, what is shorter goes on with zeros. norm: "backward"
    divides by n where one goes back, "forward" here, "ortho" by the root of it both ways.

    Real numbers become complex. Raises ValueError for a length below 1 or another norm.
    """
    return _one("fft", x, n, axis, norm, False)


def ifft(x: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of ``fft``; the arguments are the same."""
    return _one("ifft", x, n, axis, norm, True)


def rfft(x: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Tensor:
    """The first half, ``n // 2 + 1``, of what ``fft`` gives of real numbers; the other mirrors it.

    Raises DtypeError for complex numbers.
    """
    x = _prepared("rfft", x, real=True)
    place = normalize_axis("rfft", axis, x)
    x = _sized(x, _length("rfft", n, x.shape[place]), place)
    return apply(_HALF, (x,), {"axis": place, "norm": _norm("rfft", norm)})


def irfft(x: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of ``rfft``: ``n`` real numbers, ``2 * (m - 1)`` of ``m`` unless it is given.

    The imaginary parts of the first number, and of the last if ``n`` is even, count for nothing.
    """
    return _back("irfft", x, n, axis, _norm("irfft", norm))


def _back(name: str, x: Any, n: Any, axis: int, norm: str) -> Any:
    x = _prepared(name, x)
    place = normalize_axis(name, axis, x)
    length = _length(name, n, 2 * (x.shape[place] - 1))
    return _from_half(_sized(x, length // 2 + 1, place), length, place, norm)


def hfft(x: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Tensor:
    """``fft`` of numbers whose second half mirrors the first, which is given: the result is real.

    n: the length of the result, ``2 * (m - 1)`` of ``m`` unless it is given.
    """
    return _back("hfft", conj(_prepared("hfft", x)), n, axis, _OTHER[_norm("hfft", norm)])


def ihfft(x: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of ``hfft``: the first half of a spectrum of real numbers."""
    return conj(rfft(x, n, axis, _OTHER[_norm("ihfft", norm)]))


# --- along several axes ---------------------------------------------------------------------------


def _axes_of(name: str, x: Any, s: Any, axes: Any) -> list[int]:
    """The axes, which may be named more than once: all, or as many of the last as ``s`` has."""
    n = len(shape_of(x))
    lengths = None if s is None else list(_listed(name, s))
    if axes is None:
        axes = range(n) if lengths is None else range(n - len(lengths), n)
    elif hasattr(axes, "__index__"):
        axes = [axes]
    found = [normalize_axis(name, axis, x) for axis in axes]
    if lengths is not None and len(lengths) != len(found):
        raise ValueError(f"{name}: s must have a length for each axis; got {s} for {axes}")
    if not found:
        raise ShapeError(f"{name}: at least one axis is needed")
    return found


def _listed(name: str, s: Any) -> Any:
    many = hasattr(s, "__iter__") and getattr(s, "shape", None) != ()
    return s if many else [integer(name, "the lengths", s)]


def _lengths(name: str, x: Any, s: Any, axes: Sequence[int]) -> list[int]:
    sizes = [shape_of(x)[axis] for axis in axes]
    if s is None:
        return [_length(name, None, n) for n in sizes]
    given = _listed(name, s)
    return [_length(name, None if n == -1 else n, size) for n, size in zip(given, sizes)]


def _several(
    name: str, x: Any, lengths: Sequence[int], axes: Sequence[int], inverse: bool, norm: str
) -> Any:
    if len(set(axes)) == len(axes):
        for n, axis in zip(lengths, axes):
            x = _sized(x, n, axis)
        return _transformed(x, tuple(axes), inverse, norm) if axes else x
    for n, axis in zip(lengths[::-1], axes[::-1]):  # as NumPy does: the last first
        x = _transformed(_sized(x, n, axis), (axis,), inverse, norm)
    return x


def _complex_transform(name: str, inverse: bool, two: bool, doc: str) -> Callable[..., Tensor]:
    default = (-2, -1) if two else None

    def transform(
        x: Any,
        s: Lengths = None,
        axes: int | Sequence[int] | None = default,
        norm: str | None = None,
    ) -> Tensor:
        x = _prepared(name, x)
        places = _axes_of(name, x, s, axes)
        return _several(name, x, _lengths(name, x, s, places), places, inverse, _norm(name, norm))

    return _named(transform, name, doc)


def _real_transform(name: str, two: bool, doc: str) -> Callable[..., Tensor]:
    default = (-2, -1) if two else None

    def transform(
        x: Any,
        s: Lengths = None,
        axes: int | Sequence[int] | None = default,
        norm: str | None = None,
    ) -> Tensor:
        x = _prepared(name, x, real=True)
        places = _axes_of(name, x, s, axes)
        lengths = _lengths(name, x, s, places)
        y = rfft(x, lengths[-1], places[-1], norm)
        return _several(name, y, lengths[:-1], places[:-1], False, _norm(name, norm))

    return _named(transform, name, doc)


def _back_transform(name: str, two: bool, doc: str) -> Callable[..., Tensor]:
    default = (-2, -1) if two else None

    def transform(
        x: Any,
        s: Lengths = None,
        axes: int | Sequence[int] | None = default,
        norm: str | None = None,
    ) -> Tensor:
        x = _prepared(name, x)
        places = _axes_of(name, x, s, axes)
        lengths = _lengths(name, x, s, places)
        for n, axis in zip(lengths[:-1], places[:-1]):  # as NumPy does: the first first
            x = _transformed(_sized(x, n, axis), (axis,), True, _norm(name, norm))
        return irfft(x, None if s is None else lengths[-1], places[-1], norm)

    return _named(transform, name, doc)


def _named(transform: Callable[..., Tensor], name: str, doc: str) -> Callable[..., Tensor]:
    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = doc
    return transform


_AXES = """

    s: the length along each axis, -1 for that of ``x``. axes: all unless they are given, or as many
    of the last as there are lengths; one may be named again. norm: as in ``fft``.
    """
fftn = _complex_transform("fftn", False, False, "``fft`` along several axes." + _AXES)
ifftn = _complex_transform("ifftn", True, False, "The inverse of ``fftn``." + _AXES)
fft2 = _complex_transform("fft2", False, True, "``fftn`` along the last two axes." + _AXES)
ifft2 = _complex_transform("ifft2", True, True, "The inverse of ``fft2``." + _AXES)
rfftn = _real_transform(
    "rfftn", False, "``rfft`` along the last of ``axes``, then ``fftn``." + _AXES
)
rfft2 = _real_transform("rfft2", True, "``rfftn`` along the last two axes." + _AXES)
irfftn = _back_transform("irfftn", False, "The inverse of ``rfftn``." + _AXES)
irfft2 = _back_transform("irfft2", True, "The inverse of ``rfft2``." + _AXES)


def _mirrored(name: str, two: bool, back: bool, doc: str) -> Callable[..., Tensor]:
    """SciPy's transforms of real spectra: those of real numbers the other way, conjugated."""
    default = (-2, -1) if two else None

    def transform(
        x: Any,
        s: Lengths = None,
        axes: int | Sequence[int] | None = default,
        norm: str | None = None,
    ) -> Tensor:
        other = _OTHER[_norm(name, norm)]
        if back:
            return conj(rfftn(x, s, axes, other))
        return irfftn(conj(_prepared(name, x)), s, axes, other)

    return _named(transform, name, doc)


hfftn = _mirrored(
    "hfftn", False, False, "``hfft`` along the last of ``axes`` behind ``fftn``." + _AXES
)
hfft2 = _mirrored("hfft2", True, False, "``hfftn`` along the last two axes." + _AXES)
ihfftn = _mirrored("ihfftn", False, True, "The inverse of ``hfftn``." + _AXES)
ihfft2 = _mirrored("ihfft2", True, True, "The inverse of ``hfft2``." + _AXES)


# --- frequencies and their order ------------------------------------------------------------------


def fftfreq(n: int, d: float = 1.0, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """The frequencies of the results of ``fft`` of ``n`` samples ``d`` apart: 0, 1, .. -1 / (n d).

    dtype: the default real one unless another is given.
    """
    k = np.arange(_length("fftfreq", n, 0))
    k[(n + 1) // 2 :] -= n
    return _frequencies(k, n, d, dtype, device)


def rfftfreq(n: int, d: float = 1.0, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """The frequencies of the results of ``rfft``: the first ``n // 2 + 1``, none negative."""
    return _frequencies(np.arange(_length("rfftfreq", n, 0) // 2 + 1), n, d, dtype, device)


def _frequencies(k: Any, n: int, d: float, dtype: Any, device: str | None) -> Tensor:
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return asarray((k / (n * d)).astype(wanted), device=device)


def fftshift(x: Any, /, axes: int | Sequence[int] | None = None) -> Tensor:
    """``x`` with the frequency 0 in the middle of ``axes`` (all if ``None``)."""
    places = normalize_axes("fftshift", axes, x)
    return roll(x, tuple(shape_of(x)[a] // 2 for a in places), axis=places)


def ifftshift(x: Any, /, axes: int | Sequence[int] | None = None) -> Tensor:
    """``fftshift`` undone."""
    places = normalize_axes("ifftshift", axes, x)
    return roll(x, tuple(-(shape_of(x)[a] // 2) for a in places), axis=places)
