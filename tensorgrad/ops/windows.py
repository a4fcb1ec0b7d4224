"""Windows that move over the last axes of an array: what pooling is made of.

A ``Window`` says for one axis where the windows lie. Everything here goes axis by axis: the largest
or the sum of a window is that of its rows, and the rows are few views of the whole array.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as as_int
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.backend.namespace import Namespace
from tensorgrad.errors import ShapeError
from tensorgrad.ops.shaping import shape_of


class Window(NamedTuple):
    """The windows along one axis: ``results`` of them over ``size`` elements.

    Window o has the elements ``o * stride - padding + t * dilation`` for t below ``kernel``. With
    ``stride`` 0 they are adaptive: from ``o * size // results`` up to where the next would begin if
    its beginning were rounded up; ``kernel`` is the length of the longest.
    """

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    results: int

    @property
    def apart(self) -> bool:
        """Whether no element is in two windows."""
        return self.stride >= self.kernel and self.dilation == 1

    @property
    def tiles(self) -> bool:
        """Whether windows of equal length lie apart, and none reaches outside."""
        return self.apart and not self.padding and self.padded == self.size

    @property
    def whole(self) -> bool:
        """Whether there is one window, which has all elements and nothing else."""
        return self.results == 1 and self.kernel == self.size and not self.padding

    @property
    def padded(self) -> int:
        """How many elements there are, with those that stand for what lies outside."""
        last = (self.results - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        return max(self.padding + self.size, last)


Windows = tuple[Window, ...]


def numbers(name: str, what: str, given: Any, n: int, least: int) -> tuple[int, ...]:
    """An option given as one integer, or as one for each of ``n`` axes, as a tuple.

    Raises ValueError unless they are integers from ``least`` on.
    """
    sizes = tuple(given) if isinstance(given, Sequence) else (given,)
    try:
        found = tuple([as_int(size) for size in sizes if not isinstance(size, bool)])
    except TypeError:
        found = ()
    if len(found) == 1:
        found *= n
    if len(found) != n or min(found) < least:
        several = f" or {n} of them, one for each axis," if n > 1 else ""
        raise ValueError(f"{name}: {what} must be an integer{several} from {least}; got {given!r}")
    return found


def spatial(name: str, input: Any, n: int) -> tuple[int, ...]:
    """The sizes of the last ``n`` axes of ``input``. Raises ShapeError unless it has two or one
    more, for examples and channels."""
    shape = shape_of(input)
    if len(shape) - n not in (1, 2):
        axes = ", ".join("DHW"[3 - n :] if n > 1 else "L")
        raise ShapeError(
            f"{name}: the input must have shape (N, C, {axes}) or (C, {axes}); got shape {shape}"
        )
    return shape[-n:]


Options = tuple[tuple[int, ...], ...]


def options_of(
    name: str, n: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1
) -> Options:
    """The options of windows over ``n`` axes, each as one number for each axis.

    Raises ValueError for what is none, or where windows could lie outside.
    """
    kernels = numbers(name, "kernel_size", kernel_size, n, 1)
    none = stride is None or (isinstance(stride, Sequence) and not stride)
    strides = kernels if none else numbers(name, "stride", stride, n, 1)
    paddings = numbers(name, "padding", padding, n, 0)
    dilations = numbers(name, "dilation", dilation, n, 1)
    for k, p, d in zip(kernels, paddings, dilations, strict=True):
        most = ((k - 1) * d + 1) // 2
        if p > most:
            raise ValueError(
                f"{name}: padding must be at most half of the kernel, {most}; got {padding}"
            )
    return kernels, strides, paddings, dilations


def strided(
    name: str,
    input: Any,
    n: int,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Windows:
    """The windows of a kernel that moves by ``stride``, by PyTorch's rules.

    Raises ValueError for options out of range, ShapeError where the input is too small.
    """
    options = options_of(name, n, kernel_size, stride, padding, dilation)
    found = []
    for size, k, s, p, d in zip(spatial(name, input, n), *options, strict=True):
        long = (k - 1) * d + 1
        room = size + 2 * p - long
        count = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= size + p:  # it would begin beyond the end
            count -= 1
        outside = any((o * s - p) % d >= size for o in range(min(count, -(-p // s))))
        if count < 1 or not size or outside:
            raise ShapeError(
                f"{name}: a kernel of {long} does not fit into {size} elements with padding {p}; "
                f"the input has shape {shape_of(input)}"
            )
        found.append(Window(size, k, s, p, d, count))
    return tuple(found)


def adaptive(name: str, input: Any, n: int, output_size: Any) -> Windows:
    """The windows that give ``output_size`` results; ``None`` in it keeps the size of an axis."""
    sizes = spatial(name, input, n)
    given = output_size if isinstance(output_size, Sequence) else (output_size,)
    given = tuple(given) * (n if len(given) == 1 else 1)
    if len(given) == n:
        given = tuple([m if size is None else size for size, m in zip(given, sizes, strict=True)])
    counts = numbers(name, "output_size", given, n, 1)
    if 0 in sizes:
        raise ShapeError(f"{name}: there are no elements in an input of shape {shape_of(input)}")
    return tuple([adaptive_window(m, c) for m, c in zip(sizes, counts, strict=True)])


def adaptive_window(size: int, count: int) -> Window:
    """``count`` windows of nearly equal length over ``size`` elements."""
    if size % count == 0:
        return Window(size, size // count, size // count, 0, 1, count)
    longest = max(-(-(o + 1) * size // count) - o * size // count for o in range(count))
    return Window(size, longest, 0, 0, 1, count)


def bounds(xp: Any, w: Window) -> tuple[Any, Any]:
    """Where each window begins, and the element after its last one, without padding cut off."""
    o = xp.arange(w.results)
    if not w.stride:
        return o * w.size // w.results, ((o + 1) * w.size + (w.results - 1)) // w.results
    start = o * w.stride - w.padding
    return start, start + ((w.kernel - 1) * w.dilation + 1)


def views(xp: Any, x: Any, axis: int, w: Window, outside: Any) -> list[Any]:
    """For each element of a window an array of that element of all windows.

    outside: the number that stands for what lies outside. An adaptive window that is shorter than
    the longest has its last element several times.
    """
    if not w.stride:
        start, end = bounds(xp, w)
        return [taken(xp, x, xp.minimum(start + t, end - 1), axis) for t in range(w.kernel)]
    x = extended(xp, x, axis, w, outside)
    return [x[_every(axis, w, t)] for t in range(w.kernel)]


def extended(xp: Any, x: Any, axis: int, w: Window, outside: Any) -> Any:
    """``x`` with what lies outside, where windows reach there."""
    if w.padded == w.size:
        return x
    shape = (*x.shape[:axis], w.padded, *x.shape[axis + 1 :])
    y = xp.full(shape, outside, x.dtype)
    y[(slice(None),) * axis + (slice(w.padding, w.padding + w.size),)] = x
    return y


def element(w: Window, t: int) -> slice:
    """The elements number ``t`` of all windows, of what ``extended`` gives along their axis."""
    first = t * w.dilation
    return slice(first, first + (w.results - 1) * w.stride + 1, w.stride)


def _every(axis: int, w: Window, t: int) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, element(w, t))


def taken(xp: Any, x: Any, places: Any, axis: int) -> Any:
    """The elements of ``x`` at ``places`` along ``axis``."""
    if isinstance(xp, Namespace):
        return x[(slice(None),) * axis + (places,)]
    return x.take(places, axis)


def along(vector: Any, axis: int, ndim: int) -> Any:
    """A vector shaped so that it lies along ``axis`` of an array."""
    return vector.reshape((-1,) + (1,) * (ndim - 1 - axis))


def spread(xp: Any, g: Any, axis: int, w: Window) -> Any:
    """For each element the sum of ``g`` over the windows that it is in; not for adaptive ones."""
    shape = (*g.shape[:axis], w.padded, *g.shape[axis + 1 :])
    d = (xp.empty if w.apart and w.padded == w.results * w.kernel else xp.zeros)(shape, g.dtype)
    for t in range(w.kernel):
        part = d[_every(axis, w, t)]
        if w.apart:
            part[...] = g
        else:
            xp.add(part, g, out=part)
    return d[(slice(None),) * axis + (slice(w.padding, w.padding + w.size),)]


def lowest(dtype: Any) -> Any:
    """A number than which none is less."""
    return -np.inf if dtype.kind not in "iu" else np.iinfo(dtype).min
