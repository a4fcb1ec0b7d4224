"""Optimizers and gradient norms over many tensors: kernels/optimizer.cu and gradient_norm.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch.common import fits, forward, launch
from tensorgrad.backend.streams import StreamOrder
from tensorgrad.dtypes import FLOATS

#: Streams for which the addresses last sent are kept, at most.
_STREAMS = 8
#: Why programs do not have these launches in their graphs.
_BETWEEN = "its kernel reads addresses that the host sends"
#: Elements of a tensor to a block: CHUNK in kernels/many.cuh.
CHUNK = 4096


class Tables:
    """Which block of a launch has which chunk of which tensor, on the device."""

    def __init__(self, xp: Any, sizes: Sequence[int]) -> None:
        counts = [-(-size // CHUNK) for size in sizes]
        owner = np.repeat(np.arange(len(sizes), dtype=np.int32), counts)
        offset = np.concatenate(
            [np.arange(n, dtype=np.int64) * CHUNK for n in counts] or [np.zeros(0, np.int64)]
        )
        self.blocks = len(owner)
        self.sizes = xp.asarray(np.array(sizes, np.int64))
        self.owner = xp.asarray(owner)
        self.offset = xp.asarray(offset)
        self.order = StreamOrder()
        self.order.here(xp)
        #: for each stream the addresses last sent, and where they are; replaced as one, for the
        #: sake of threads
        self._sent: dict[int, tuple[Sequence[int], Any]] = {}

    def arguments(self, xp: Any, addresses: Sequence[int]) -> tuple[Any, ...]:
        """The first arguments of a kernel over these tensors, in the order of their addresses.

        The addresses are sent to the device anew if they changed: by a copy that does not wait.
        CuPy's pool often gives a gradient the memory that it had in the step before. What is let
        go of here may still be in use by the last launch, but the pool hands it out again in the
        order of the stream only.
        """
        stream = self.order.here(xp).ptr
        sent, pointers = self._sent.get(stream, ((), None))
        if addresses != sent:
            pointers = xp.asarray(np.array(addresses, np.uint64))
            if len(self._sent) >= _STREAMS:
                self._sent = {}
            self._sent[stream] = addresses, pointers
        return pointers, self.sizes, self.owner, self.offset


@lru_cache(maxsize=64)
def _tables(xp: Any, sizes: tuple[int, ...], device: int) -> Tables:
    return Tables(xp, sizes)


class _Bundle:
    """What the kernels need of the parameters of a bundle, made once."""

    def __init__(self, xp: Any, scratch: Any, sizes: Sequence[int]) -> None:
        self.tables = Tables(xp, sizes)
        self.starts = xp.asarray(np.array(scratch.starts, np.int64))
        self.ticket = xp.zeros(1, np.uint32)
        self.step = xp.zeros(1, np.int64)


def _prepared(
    xp: Any, scratch: Any, params: Sequence[Array], grads: Sequence[Array]
) -> tuple[_Bundle, tuple[Any, ...], Sequence[Array]] | None:
    """The bundle's tables and the first arguments of its kernel; ``None`` if it does not fit.

    And copies of gradients among those that are pointed to, to be kept until the kernel is queued.
    """
    kind, dtype = xp.ndarray, params[0].dtype
    addresses: list[int] = []
    copies = []
    for p, g in zip(params, grads):
        if type(p) is not kind or p.dtype != dtype or g.dtype != dtype or not p.flags.c_contiguous:
            return None
        if not g.flags.c_contiguous:
            g = xp.ascontiguousarray(g)
            copies.append(g)
        addresses += p.data.ptr, g.data.ptr
    if dtype not in FLOATS:
        return None
    if scratch.device is None:
        scratch.device = _Bundle(xp, scratch, [p.size for p in params])
    bundle: _Bundle = scratch.device
    return bundle, (*bundle.tables.arguments(xp, addresses), bundle.starts), copies


@forward("sgd", between=_BETWEEN)
def _sgd(
    xp: Any,
    step: Array,
    memory: Array,
    *arrays: Array,
    scratch: Any,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> Any:
    n = len(arrays) // 2
    found = _prepared(xp, scratch, arrays[:n], arrays[n:])
    if found is None:
        return NotImplemented
    bundle, first, _pointed_to = found
    if bundle.tables.blocks:
        dtype = arrays[0].dtype
        # An argument that is not used still needs an address.
        unused = xp.empty(0, arithmetic(dtype)) if memory is None else memory
        launch(
            xp, "optimizer", "sgd", dtype, (bundle.tables.blocks,), *first, unused,
            bundle.step if step is None else step, bundle.ticket,
            np.int32(memory is not None), np.int32(step is not None), float(lr), float(momentum),
            float(dampening), float(weight_decay), np.int32(nesterov), np.int32(maximize),
        )  # fmt: skip
    return arrays[0]


@forward("adam", between=_BETWEEN)
def _adam(
    xp: Any,
    step: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array,
    *arrays: Array,
    scratch: Any,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> Any:
    n = len(arrays) // 2
    found = _prepared(xp, scratch, arrays[:n], arrays[n:])
    if found is None:
        return NotImplemented
    bundle, first, _pointed_to = found
    if bundle.tables.blocks:
        third = exp_avg if max_exp_avg_sq is None else max_exp_avg_sq
        launch(
            xp, "optimizer", "adam", arrays[0].dtype, (bundle.tables.blocks,), *first, exp_avg,
            exp_avg_sq, third, step, bundle.ticket, float(lr), float(betas[0]), float(betas[1]),
            float(eps), float(weight_decay), np.int32(decoupled),
            np.int32(max_exp_avg_sq is not None), np.int32(maximize),
        )  # fmt: skip
    return arrays[0]


# --- norms of gradients ---------------------------------------------------------------------------


def _gradients(xp: Any, grads: Sequence[Array]) -> tuple[Tables, tuple[Any, ...]] | None:
    if not fits(xp, *grads) or not all(g.flags.c_contiguous for g in grads):
        return None
    tables = _tables(xp, tuple([g.size for g in grads]), grads[0].device.id)
    return tables, tables.arguments(xp, [g.data.ptr for g in grads])


@forward("total_norm", between=_BETWEEN)
def _total_norm(xp: Any, *grads: Array, norm_type: float) -> Array:
    found = _gradients(xp, grads) if norm_type == 2 else None
    if found is None:
        return NotImplemented
    tables, first = found
    dtype = grads[0].dtype
    norm = xp.empty((), arithmetic(dtype))
    squares = xp.empty(tables.blocks, np.float64)
    if tables.blocks:
        grid = (tables.blocks,)
        launch(xp, "gradient_norm", "sum_squares", dtype, grid, *first, squares)
    launch(xp, "gradient_norm", "root_of_sum", dtype, (1,), squares, norm, tables.blocks)
    return norm


@forward("clip_grad_norm_", between=_BETWEEN)
def _scale(xp: Any, norm: Array, *grads: Array, max_norm: float) -> Any:
    found = _gradients(xp, grads)
    dtype = grads[0].dtype
    if found is None or not math.isfinite(max_norm) or norm.dtype != arithmetic(dtype):
        return NotImplemented
    tables, first = found
    if tables.blocks:
        limit = norm.dtype.type(max_norm)
        grid = (tables.blocks,)
        launch(xp, "gradient_norm", "scale_gradients", dtype, grid, *first, norm, limit)
    return grads[0]


@forward("clip_grad_value_", between=_BETWEEN)
def _limit(xp: Any, *grads: Array, clip_value: float) -> Any:
    found = _gradients(xp, grads)
    if found is None:
        return NotImplemented
    tables, first = found
    dtype = grads[0].dtype
    if tables.blocks:
        limit = arithmetic(dtype).type(clip_value)
        launch(xp, "gradient_norm", "limit_gradients", dtype, (tables.blocks,), *first, limit)
    return grads[0]
