"""Convolution by cuDNN, through the graph API of its frontend (package ``cudnn``), and what it has
in common with attention, ``cudnn_attention``.

A graph says of one operation what its arrays are: sizes and strides, dtypes, a number for each.
cuDNN is asked once for each such description how it would compute it, and the plan is kept. It is
called with addresses by number, a workspace from CuPy's pool and the current stream, so that it can
be captured. Where the frontend or the library is missing, or cuDNN refuses, the functions here
return ``None``, and kernels of ours compute the same; ``refused`` says why.

Equal calls give equal bits: plans that add in no fixed order are left out, those too that round
float32 to TF32 unless that is allowed, add 16-bit floats in 16 bits, or let an infinity reach
results that do not depend on it (FFT, Winograd).

Source of names and rules: the documentation of NVIDIA/cudnn-frontend, "Convolutions", and the cuDNN
reference, cudnnBackendNumericalNote_t.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.backend.base import Array
from tensorgrad.backend.gemm import row_major
from tensorgrad.dtypes import bfloat16, float16, float32

#: The oldest library that is used, as it numbers itself: 9.1.0.
OLDEST = 90100
#: Bytes that a plan may take while it runs; others are left out.
WORKSPACE = 1 << 30
#: How many plans are made at most. None is ever given up: a CUDA graph may have its kernels.
_PLANS = 4096
#: What cuDNN wants of addresses, in bytes.
ALIGNMENT = 16
#: Names of cudnn.data_type by dtype.
TYPES = {float32: "FLOAT", float16: "HALF", bfloat16: "BFLOAT16"}
#: Names of cudnn.numerical_note that no plan may have.
_NOTES = (
    "NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION", "FFT", "WINOGRAD",
    "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13",
)  # fmt: skip
#: How the kernels of rows begin for which it is asked.
KERNELS = ("convolution", "attention")
INSTALL = "pip install nvidia-cudnn-frontend nvidia-cudnn-cu13 (nvidia-cudnn-cu12 for CUDA 12)"

Sizes = tuple[int, ...]
#: Shape and strides in elements.
Layout = tuple[Sizes, Sizes]


class Plan(NamedTuple):
    """A graph that is ready to be executed, and bytes that it works with."""

    graph: Any
    workspace: int


class Convolution(NamedTuple):
    """What is asked: one of the three operations of a convolution.

    kind: "fprop" (of x and weight), "dgrad" (the gradient of x, of those of the result and weight),
    or "wgrad" (the gradient of the weight, of that of the result and x). a, b, out: the arrays in
    this order, and what is computed. bias: whether one is added.
    """

    kind: str
    dtype: np.dtype[Any]
    a: Layout
    b: Layout
    out: Layout
    bias: bool
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    tf32: bool

    def __str__(self) -> str:
        return f"{self.kind} of {self.a[0]}, {self.b[0]} in {self.dtype}"


# --- how arrays lie -------------------------------------------------------------------------------


def _channels_last(shape: Sizes) -> Sizes:
    """Strides of (N, C, ...) without gaps, the channels side by side."""
    turned = row_major((shape[0], *shape[2:], shape[1]))
    return (turned[0], turned[-1], *turned[1:-1])


def _layout(shape: Sizes, strides: Sizes) -> Layout:
    """How an array lies; where axes of size 1 leave a choice, as others that have it."""
    known = [row_major(shape), *([_channels_last(shape)] if len(shape) > 2 else [])]
    for each in known:
        if all(n == 1 or s == t for n, s, t in zip(shape, strides, each)):
            return shape, each
    return shape, strides


def _new(xp: Any, shape: Sizes, dtype: Any, last: bool) -> Array:
    """A new array (N, C, ...), its channels side by side if ``last``."""
    if not last:
        return xp.empty(shape, dtype)
    y = xp.empty((shape[0], *shape[2:], shape[1]), dtype)
    return y.transpose(0, y.ndim - 1, *range(1, y.ndim - 1))


def _planar(layout: Layout) -> tuple[list[int], list[int]]:
    """Sizes and strides with at least two axes behind the channels."""
    dims, strides = map(list, layout)
    if len(dims) == 3:
        dims.insert(2, 1)
        strides.insert(2, dims[3] * strides[2])
    return dims, strides


def _after(n: int, kernel: int, stride: int, padding: int, dilation: int, out: int) -> int | None:
    """Zeros behind an axis of ``n`` that gets ``padding`` before it, for ``out`` windows.

    As many as before where that is right, as more plans know that; ``None`` if there is none.
    """
    span = dilation * (kernel - 1) + 1
    for after in (padding, max(0, (out - 1) * stride + span - n - padding)):
        if (n + padding + after - span) // stride + 1 == out:
            return after
    return None


# --- the library on one device --------------------------------------------------------------------


class Cudnn:
    """cuDNN on one device: a handle and its plans."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._handle = library.create_handle()
        self._lock = threading.Lock()
        #: a plan, or why there is none
        self._plans: dict[Any, Plan | str] = {}

    def refused(self) -> dict[str, str]:
        """What was asked for and refused, with the library's reason."""
        with self._lock:
            found = {str(key): why for key, why in self._plans.items() if type(why) is str}
            if len(self._plans) >= _PLANS:
                found["whatever else"] = f"there are {_PLANS} descriptions already"
            return found

    def run(
        self, xp: Any, key: Any, describe: Callable[[Any, Any, Any], None], at: Sequence[int]
    ) -> bool:
        """Execute the graph that ``describe(library, graph, key)`` builds; whether there is one.

        at: the addresses of the arrays with the numbers from 1. Those that the graph writes are
        written on the current stream. Its workspace is made by ``xp``, whose memory is taken and
        given back in the stream's order.
        """
        with self._lock:
            plan = self._plans.get(key)
            if plan is None:
                if len(self._plans) >= _PLANS:
                    return False
                plan = self._plans[key] = self._planned(key, describe)
            if type(plan) is not Plan:
                return False
            workspace = 0
            if plan.workspace:
                memory = xp.empty(plan.workspace, np.uint8)
                workspace = memory.data.ptr
            pack = dict(enumerate(at, 1))
            self._library.set_stream(self._handle, xp.cuda.get_current_stream().ptr)
            plan.graph.execute(pack, workspace, handle=self._handle)
            return True

    def _planned(self, key: Any, describe: Callable[[Any, Any, Any], None]) -> Plan | str:
        try:
            graph = described(self._library, key, describe, handle=self._handle)
            return Plan(graph, planned(self._library, graph, key.dtype, key.tf32))
        except Exception as error:  # whatever the library has to say is the reason
            return f"{type(error).__name__}: {error}"


def described(
    library: Any, key: Any, describe: Callable[[Any, Any, Any], None], **options: Any
) -> Any:
    """A graph of arrays of ``key.dtype`` that computes in float32, and checks that it is one."""
    single = library.data_type.FLOAT
    graph = library.pygraph(
        io_data_type=getattr(library.data_type, TYPES[key.dtype]),
        intermediate_data_type=single, compute_data_type=single, **options,
    )  # fmt: skip
    describe(library, graph, key)
    graph.validate()
    graph.build_operation_graph()
    return graph


def planned(library: Any, graph: Any, dtype: np.dtype[Any], tf32: bool) -> int:
    """Choose and build the best plan among those that are allowed; the workspace it needs.

    Raises whatever the library raises where there is none.
    """
    modes, notes = library.heur_mode, library.numerical_note
    graph.create_execution_plans([modes.A, modes.FALLBACK])
    unwanted = [getattr(notes, name) for name in _NOTES]
    if dtype == float32 and not tf32:
        unwanted.append(notes.TENSOR_CORE)
    graph.deselect_numeric_notes(unwanted)
    # The frontend's own engines compile for seconds where they are used first.
    graph.deselect_engines(["sdpa_"])
    graph.deselect_workspace_greater_than(WORKSPACE)
    graph.check_support()
    graph.build_plans(library.build_plan_policy.HEURISTICS_CHOICE)
    return int(graph.get_workspace_size())


# --- convolutions ---------------------------------------------------------------------------------

#: What the arrays are called by the functions of a graph.
_NAMES = {"fprop": ("image", "weight"), "dgrad": ("loss", "filter"), "wgrad": ("loss", "image")}


def convolution_graph(library: Any, graph: Any, key: Convolution) -> None:
    """Describe a convolution: arrays 1 and 2, the bias as 4, the result as 3."""
    first, second = (
        graph.tensor(dim=dims, stride=strides, uid=uid)
        for uid, (dims, strides) in enumerate(map(_planar, (key.a, key.b)), 1)
    )
    dims, strides = _planar(key.out)
    x, weight, y = _roles(key)
    after = [
        _after(*numbers)
        for numbers in zip(
            x[2:], weight[2:], key.stride, key.padding, key.dilation, y[2:], strict=True
        )
    ]
    if None in after:
        raise ValueError(f"no padding behind {x} gives {y}")
    more = len(dims) - len(x)
    a, b = _NAMES[key.kind]
    found = getattr(graph, f"conv_{key.kind}")(
        **{a: first, b: second},
        pre_padding=[0] * more + list(key.padding), post_padding=[0] * more + after,
        stride=[1] * more + list(key.stride), dilation=[1] * more + list(key.dilation),
    )  # fmt: skip
    if key.bias:
        count, ones = dims[1], [1] * (len(dims) - 2)
        bias = graph.tensor(dim=[1, count, *ones], stride=[count, 1, *ones], uid=4)
        found = graph.bias(input=found, bias=bias)
    written(library, found, (dims, strides), key.dtype, 3)


def written(library: Any, tensor: Any, layout: Any, dtype: np.dtype[Any], uid: int) -> None:
    """Say of a tensor that the graph computes that it is written, and where."""
    tensor.set_output(True).set_dim(list(layout[0])).set_stride(list(layout[1])).set_uid(uid)
    tensor.set_data_type(getattr(library.data_type, TYPES[dtype]))


def _roles(key: Convolution) -> tuple[Sizes, Sizes, Sizes]:
    """The shapes of input, weight and result of the convolution that this is one of."""
    a, b, out = key.a[0], key.b[0], key.out[0]
    return {"fprop": (a, b, out), "dgrad": (out, b, a), "wgrad": (b, out, a)}[key.kind]


def convolution(
    xp: Any, kind: str, a: Array, b: Array, bias: Array | None, shape: Sizes, stride: Sizes,
    padding: Sizes, dilation: Sizes, tf32: bool,
) -> Array | None:  # fmt: skip
    """A convolution, or one of its gradients, of ``shape``: see ``Convolution``.

    padding: before each axis. Arrays are read as they lie; the result has its channels where ``a``
    has them. ``None`` where cuDNN does not do it, or would not add the bias on the way.
    """
    made = of(a)
    if made is None:
        return None
    asked = _asked(
        kind, a.dtype, a.shape, a.strides, b.shape, b.strides, bias is not None, shape, stride,
        padding, dilation, tf32,
    )  # fmt: skip
    if asked is None:
        return None
    first, second = a.data.ptr, b.data.ptr
    third = 0 if bias is None else bias.data.ptr
    unfit = not asked.fits or (first | second | third) % ALIGNMENT != 0
    unfit = unfit or (bias is not None and bias.strides[0] != bias.itemsize)
    if not unfit:
        out = _new(xp, shape, a.dtype, asked.last)
        at = (first, second, out.data.ptr, third)
        if made.run(xp, asked.key, convolution_graph, at if third else at[:3]):
            return out
        if asked.packed:
            return None
    # It takes no such array, or knows no plan for gaps.
    a, b, bias = (None if x is None else _dense(x, unfit) for x in (a, b, bias))
    return convolution(xp, kind, a, b, bias, shape, stride, padding, dilation, tf32)


def _dense(x: Array, aligned: bool) -> Array:
    """``x``, copied unless it lies without gaps and, if that matters, aligned."""
    strides = tuple([s // x.itemsize for s in x.strides])
    fits = _is_packed(_layout(x.shape, strides)) and not (aligned and x.data.ptr % ALIGNMENT)
    return x if fits else x.copy(order="C")


class _Asked(NamedTuple):
    """What is asked of arrays of some shapes and strides.

    last: whether the channels of the result are behind. fits: whether the strides are such as cuDNN
    takes. packed: whether there are no gaps.
    """

    key: Convolution
    last: bool
    fits: bool
    packed: bool


@lru_cache(maxsize=_PLANS)
def _asked(
    kind: str, dtype: np.dtype[Any], a: Sizes, a_bytes: Sizes, b: Sizes, b_bytes: Sizes,
    biased: bool, out: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, tf32: bool,
) -> _Asked | None:  # fmt: skip
    """``None`` where something has no elements."""
    if 0 in (*a, *b, *out):
        return None
    laid = [
        _layout(shape, tuple([s // dtype.itemsize for s in strides]))
        for shape, strides in ((a, a_bytes), (b, b_bytes))
    ]
    last = kind != "wgrad" and laid[0][1] == _channels_last(a) != row_major(a)
    made = out, _channels_last(out) if last else row_major(out)
    key = Convolution(kind, dtype, laid[0], laid[1], made, biased, stride, padding, dilation, tf32)
    fits = all(
        n == 1 or (s > 0 and not s % dtype.itemsize) for n, s in zip((*a, *b), (*a_bytes, *b_bytes))
    )
    return _Asked(key, last, fits, all(map(_is_packed, laid)))


def _is_packed(layout: Layout) -> bool:
    shape, strides = layout
    return strides == row_major(shape) or (len(shape) > 2 and strides == _channels_last(shape))


# --- where it is ----------------------------------------------------------------------------------

#: By number of the device: cuDNN, or why it is not used.
_MADE: dict[int, Cudnn | str] = {}


@cache
def _library() -> Any:
    """The frontend, or why it is not used."""
    if os.environ.get("TENSORGRAD_CUDNN", "1") == "0":
        return "switched off by TENSORGRAD_CUDNN=0"
    try:
        library = importlib.import_module("cudnn")
        version = int(library.backend_version())
    except Exception as error:  # the package may be there and the library not
        return f"{error}; {INSTALL}"
    if version < OLDEST:
        return f"cuDNN {_version(version)} is older than {_version(OLDEST)}; {INSTALL}"
    return library


def _version(number: int) -> str:
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def of(array: Array) -> Cudnn | None:
    """cuDNN for ``array``, on its device; ``None`` where it is not to be used."""
    if array.dtype not in TYPES:
        return None
    device = array.data.device_id
    found = _MADE.get(device)
    if found is None:
        found = _on(device)
    return found if type(found) is Cudnn else None


def _on(device: int) -> Cudnn | str:
    """cuDNN on the current device, which has this number."""
    found: Any = _library()
    if type(found) is not str:
        try:
            found = Cudnn(found)
        except Exception as error:  # it may be for another CUDA
            found = f"{error}; {INSTALL}"
    _MADE[device] = found
    return found


def state(xp: Any) -> str:
    """What is used of cuDNN on the current device, or why nothing is, for people."""
    device = xp.cuda.runtime.getDevice()
    found = _MADE.get(device) or _on(device)
    if type(found) is str:
        return f"not used: {found}"
    library = _library()
    return f"{_version(int(library.backend_version()))}, frontend {library.__version__}"


def refused() -> dict[str, str]:
    """What cuDNN was asked for and refused, with its reasons."""
    found: dict[str, str] = {}
    for made in _MADE.values():
        if type(made) is Cudnn:
            found |= made.refused()
    return found


def forget() -> None:
    """Let go of all handles and plans: the library is another from now on."""
    _library.cache_clear()
    _MADE.clear()
