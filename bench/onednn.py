"""Convolutions by oneDNN's own kernels, in the layouts that they ask for: what a kernel can reach.

Nothing is converted where it is timed. The library is that of the wheel ``onednn-cpu-gomp``; the
names are those of its C interface (``dnnl.h``, version 3).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_CPU, _IN_ORDER, _FLOAT32, _ANY_LAYOUT = 1, 1, 3, 1
_FORWARD_TRAINING, _DIRECT = 64, 1
#: What a primitive is given, and by which number one asks for its layout.
_SRC, _DST, _WEIGHTS, _BIAS = (1, 129), (17, 133), (33, 131), (41, 131)
_DIFF_SRC, _DIFF_DST, _DIFF_WEIGHTS = (129, 130), (145, 134), (161, 132)
_DIFF_BIAS = (169, 132)

_Dims = ctypes.c_int64 * 12
_Pointer = ctypes.c_void_p


class Convolution(NamedTuple):
    """A convolution of 3 x 3 with a border of 1: (images, inner, size, size) with ``outer``
    channels of the result; with a bias or without."""

    images: int
    inner: int
    outer: int
    size: int
    stride: int = 1
    bias: bool = False

    @property
    def result_size(self) -> int:
        """Height and width of the result."""
        return (self.size - 1) // self.stride + 1


class _Argument(ctypes.Structure):
    _fields_ = (("number", ctypes.c_int), ("memory", _Pointer))


def path() -> Path | None:
    """Where the library is, if the wheel is installed."""
    found = Path(sys.prefix) / "lib" / "libdnnl.so.3"
    return found if found.exists() else None


class _Library:
    """The functions of the library, which raise for a status that is not 0."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(path()))
        self._library.dnnl_primitive_desc_query_md.restype = _Pointer
        self._library.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
        self.engine = self.made("engine_create", _CPU, ctypes.c_size_t(0))
        self.stream = self.made("stream_create", self.engine, _IN_ORDER)

    def made(self, name: str, *given: Any) -> _Pointer:
        """What a function puts where its first argument points."""
        out = _Pointer()
        status = getattr(self._library, f"dnnl_{name}")(ctypes.byref(out), *given)
        if status:
            raise RuntimeError(f"dnnl_{name} fails with status {status}")
        return out

    def layout(self, *shape: int) -> _Pointer:
        """A tensor whose layout the primitive chooses."""
        return self.made(
            "memory_desc_create_with_tag", len(shape), _Dims(*shape), _FLOAT32, _ANY_LAYOUT
        )

    def memory(self, primitive: _Pointer, query: int, index: int) -> tuple[_Pointer, Any]:
        """Memory in the layout that a primitive asks for, and the array of random numbers in it."""
        chosen = _Pointer(self._library.dnnl_primitive_desc_query_md(primitive, query, index))
        size = self._library.dnnl_memory_desc_get_size(chosen)
        array = np.empty(size // 4 + 16, np.float32)
        array = array[-array.ctypes.data % 64 // 4 :][: size // 4]
        array[:] = np.random.default_rng(0).standard_normal(len(array))
        place = _Pointer(array.ctypes.data)
        return self.made("memory_create", chosen, self.engine, place), array

    def call(
        self, described: _Pointer, given: list[tuple[tuple[int, int], int]]
    ) -> Callable[[], None]:
        """A call of a primitive with memory of its own for all that it is given."""
        primitive = self.made("primitive_create", described)
        arguments, arrays = (_Argument * len(given))(), []
        for k, ((number, query), index) in enumerate(given):
            memory, array = self.memory(described, query, index)
            arguments[k] = _Argument(number, memory)
            arrays.append(array)
        execute, wait = self._library.dnnl_primitive_execute, self._library.dnnl_stream_wait
        stream, count = self.stream, len(given)

        def run(_kept: Any = arrays) -> None:
            status = execute(primitive, stream, count, arguments) or wait(stream)
            if status:
                raise RuntimeError(f"dnnl_primitive_execute fails with status {status}")

        return run


def convolution(what: Convolution, kind: str) -> Callable[[], None]:
    """A call that computes "forward", "data" or "weights", the gradient for either."""
    library = _Library()
    n, size, out = what.images, what.size, what.result_size
    x = library.layout(n, what.inner, size, size)
    weights = library.layout(what.outer, what.inner, 3, 3)
    bias = library.layout(what.outer) if what.bias else None
    y = library.layout(n, what.outer, out, out)
    options = [_Dims(*pair) for pair in ((what.stride,) * 2, (0, 0), (1, 1))]
    after = (out - 1) * what.stride + 3 - size - 1
    options.append(_Dims(after, after))
    forward = library.made(
        "convolution_forward_primitive_desc_create", library.engine, _FORWARD_TRAINING, _DIRECT,
        x, weights, bias, y, *options, None,
    )  # fmt: skip
    if kind == "forward":
        given = [(_SRC, 0), (_WEIGHTS, 0), (_DST, 0), *[(_BIAS, 1)] * what.bias]
        return library.call(forward, given)
    if kind == "data":
        back = library.made(
            "convolution_backward_data_primitive_desc_create", library.engine, _DIRECT,
            x, weights, y, *options, forward, None,
        )  # fmt: skip
        return library.call(back, [(_DIFF_SRC, 0), (_WEIGHTS, 0), (_DIFF_DST, 0)])
    back = library.made(
        "convolution_backward_weights_primitive_desc_create", library.engine, _DIRECT,
        x, weights, bias, y, *options, forward, None,
    )  # fmt: skip
    given = [(_SRC, 0), (_DIFF_WEIGHTS, 0), (_DIFF_DST, 0), *[(_DIFF_BIAS, 1)] * what.bias]
    return library.call(back, given)
