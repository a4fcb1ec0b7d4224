"""How an update rule runs over many parameters at once: one primitive on flat memory.

An update rule is an elementwise function of flat arrays: from the values ``p``, the gradients
``g`` and the state it computes ``u``, what is to be subtracted from ``p``. Here it is made a
primitive that updates all parameters of a bundle in one call. The states of a bundle are one flat
array each, in the order of its parameters. The NumPy value walks over them in pieces: small
parameters are gathered into one piece, since a call costs more than their elements, and large ones
are cut into chunks that stay in the cache between the passes of the rule.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend.namespace import Namespace
from tensorgrad.dtypes import HALVES, float32
from tensorgrad.ops.numbers import constant
from tensorgrad.tape import Primitive

#: ``rule(xp, numbers, **options)`` gives ``update(step, p, g, u, w, *states)``, which advances the
#: states in place, writes the step to ``u`` and may use ``w`` for what it likes. It must not write
#: to ``g``. ``step`` counts from 1, and is ``None`` where the optimizer keeps no count.
Rule = Callable[..., Callable[..., None]]

# Elements of a piece: 128 KiB of float32 for each operand, of which a pass of the rule uses three.
# Measured on matrices of 784 x 128 and 512 x 512: half of it costs more calls, twice of it gains
# nothing more.
CHUNK = 1 << 15

#: Primitives that update a bundle elementwise, each with the number of its states.
BUNDLES: dict[Primitive, int] = {}

# On a GPU a parameter's state begins at a multiple of so many elements, for 16-byte accesses.
ROOM = 8


class Numbers:
    """Makes Python numbers fit for arithmetic with arrays of ``dtype``.

    NumPy takes a 0-d array in half the time of a Python number. CuPy passes a number to its kernel
    as an argument, but would have to copy a 0-d array to the GPU.
    """

    __slots__ = ("constant", "scalar")

    def __init__(self, dtype: np.dtype[Any], on_host: bool) -> None:
        #: for numbers that stay the same from step to step
        self.constant: Callable[[float], Any] = float
        #: for numbers that are other ones in each step
        self.scalar: Callable[[float], Any] = float
        if on_host:
            self.constant = lambda value: constant(value, dtype)
            self.scalar = lambda value: np.asarray(value, dtype)

    @staticmethod
    def sqrt(value: Any) -> Any:
        """The root of a number."""
        return math.sqrt(value)

    @staticmethod
    def choice(condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        """What the one function gives where the condition, a number's, holds, else the other."""
        return yes() if condition else no()


class SymbolicNumbers:
    """What ``Numbers`` does, for numbers that are other ones in every replay of a program."""

    def __init__(self, xp: Namespace, dtype: np.dtype[Any]) -> None:
        self._xp, self._dtype = xp, dtype
        self.sqrt: Callable[[Any], Any] = xp.sqrt  # type: ignore[attr-defined]

    def constant(self, value: Any) -> Any:
        """See Numbers."""
        if isinstance(value, int | float):
            return self._dtype.type(value)
        return value.astype(self._dtype)

    scalar = constant

    def choice(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        """See Numbers. Both are computed."""
        return self._xp.where(condition, yes(), no())  # type: ignore[attr-defined]


class Piece:
    """Parameters ``first`` to ``stop`` of a bundle, and where their elements lie.

    Several parameters, or a small one: gathered into ``g`` (and ``p``), with ``gs``, ``ps`` and
    ``us`` being the parts of the buffers in the shape of each parameter. A large parameter:
    ``chunks``, pairs of the range in the states and the range in the parameter itself.
    """

    __slots__ = ("at", "chunks", "first", "gs", "ps", "stop", "us")

    def __init__(self, first: int, stop: int, start: int, end: int) -> None:
        self.first = first
        self.stop = stop
        self.at = slice(start, end)
        self.chunks: list[tuple[slice, slice]] = []
        self.gs: list[Any] = []
        self.ps: list[Any] = []
        self.us: list[Any] = []


class Scratch:
    """Buffers for the update of parameters of these ``shapes``, made once and used every step.

    They belong to one optimizer, so two threads never meet in them.
    """

    __slots__ = (
        "_buffers", "casts", "device", "dtype", "numbers", "options", "padded", "pieces", "place",
        "shapes", "starts", "total", "update", "whole",
    )  # fmt: skip

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any], device: str
    ) -> None:
        place = backend.backend_for(device)
        #: the dtype of the states and of the arithmetic: 16-bit parameters get float32
        self.dtype = float32 if dtype in HALVES else dtype
        self.casts = self.dtype != dtype
        on_host = place.xp is np
        self.numbers = Numbers(self.dtype, on_host)
        sizes = [int(np.prod(shape)) for shape in shapes]
        room = sizes if on_host else [-(-size // ROOM) * ROOM for size in sizes]
        #: whether there is room between the parameters
        self.padded = room != sizes
        #: where each parameter's part of a state begins, and the elements of a state
        *self.starts, self.total = accumulate(room, initial=0)
        # Elsewhere than on the host a chunk would only mean more launches.
        self.pieces = _pieces(room, CHUNK if on_host else max(room))
        #: whether one piece covers everything, so that the states need not be cut
        self.whole = len(self.pieces) == 1 and not self.pieces[0].chunks
        self.place = device
        self.shapes = shapes
        self._buffers: tuple[Any, ...] | None = None
        #: the rule bound to these options
        self.options: dict[str, Any] | None = None
        self.update: Any = None
        #: what the launcher of a kernel keeps of the bundle
        self.device: Any = None

    @property
    def buffers(self) -> tuple[Any, ...]:
        """The gradients, the values, the step, and one for the rule; a kernel needs none."""
        if self._buffers is None:
            self._buffers = self._new_buffers()
        return self._buffers

    def _new_buffers(self) -> tuple[Any, ...]:
        place = backend.backend_for(self.place)
        longest = 0
        for piece in self.pieces:
            parts = [at for at, _ in piece.chunks] or [piece.at]
            longest = max(longest, *(part.stop - part.start for part in parts))
        buffers = tuple(
            place.asarray(np.zeros(longest, self.dtype), None, self.place, True) for _ in range(4)
        )
        for piece in self.pieces:
            if not piece.chunks:
                own = self.shapes[piece.first : piece.stop]
                starts = [s - piece.at.start for s in self.starts[piece.first : piece.stop]]
                piece.gs, piece.ps, piece.us = (_shaped(b, own, starts) for b in buffers[:3])
        return buffers


def warn(text: str) -> None:
    """Warn whoever called into this package."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, RuntimeWarning, stacklevel=level)


_PACKAGE = __name__.partition(".")[0] + "."
REMEDY = (
    "An infinite mean square keeps its parameter where it is for good: clip the gradients "
    "(optim.clip_grad_norm_), and look for what makes them so large"
)


def watching(name: str) -> Context:
    """Where the update rule ``name`` runs, on the CPU, with a word of what overflows in it.

    To enter a context takes a tenth of what np.errstate takes, and a step may be a short one.
    """

    def overflowed(kind: str, flag: int) -> None:
        """Called by NumPy."""
        warn(f"{name}: a gradient, squared, or a step is too large for its dtype. {REMEDY}")

    context = Context()
    context.run(np.seterrcall, overflowed)
    context.run(np.seterr, over="call")
    return context


def _pieces(sizes: Sequence[int], chunk: int) -> list[Piece]:
    """The parameters in pieces of about ``chunk`` elements at most."""
    pieces: list[Piece] = []
    start = 0
    for i, size in enumerate(sizes):
        last = pieces[-1] if pieces else None
        if last and not last.chunks and start + size - last.at.start <= chunk:
            last.stop = i + 1
            last.at = slice(last.at.start, start + size)
        else:
            piece = Piece(i, i + 1, start, start + size)
            if size > chunk:
                parts = -(-size // chunk)
                bounds = [size * k // parts for k in range(parts + 1)]
                piece.chunks = [
                    (slice(start + a, start + b), slice(a, b)) for a, b in pairwise(bounds)
                ]
            pieces.append(piece)
        start += size
    return pieces


def _shaped(buffer: Any, shapes: Sequence[tuple[int, ...]], starts: Sequence[int]) -> list[Any]:
    """Parts of ``buffer`` in the given shapes."""
    return [
        buffer[start : start + int(np.prod(shape))].reshape(shape)
        for shape, start in zip(shapes, starts)
    ]


def update_primitive(name: str, states: int, rule: Rule) -> Primitive:
    """The primitive that applies ``rule`` to a bundle of parameters.

    Its inputs are the step count (a 0-d integer), then the ``states`` flat arrays, then n
    parameters and their n gradients; a count or state that is not in use is ``None``. Its
    attributes are the options of the rule and the ``scratch``, which says nothing about the
    result. All inputs but the gradients are overwritten. The result is the first parameter.
    """

    def value(xp: Any, step: Any, *arrays: Any, scratch: Scratch, **options: Any) -> Any:
        """All parameters: small ones gathered, large ones by blocks."""
        n = (len(arrays) - states) // 2
        flat = arrays[:states]
        params = arrays[states : states + n]
        grads = arrays[states + n :]
        count = None
        if step is not None:
            count = int(step) + 1
            step[()] = count
        update = scratch.update
        if scratch.options != options:
            update = scratch.update = rule(xp, scratch.numbers, **options)
            scratch.options = options
        reads_values = options["weight_decay"] != 0
        buffers = scratch.buffers
        run = context.copy().run
        for piece in scratch.pieces:
            if piece.chunks:
                p, g = params[piece.first], grads[piece.first]
                rule_at = partial(update, count)
                run(_in_chunks, xp, rule_at, piece, scratch, flat, p, g, reads_values)
                continue
            own = params[piece.first : piece.stop]
            if scratch.padded:  # else what a rule left between the parameters would reach states
                buffers[0].fill(0)
            for view, g in zip(piece.gs, grads[piece.first : piece.stop]):
                view[...] = g
            if reads_values:
                for view, p in zip(piece.ps, own):
                    view[...] = p
            if scratch.whole:
                g, p, u, w = buffers
                run(update, count, p, g, u, w, *flat)
            else:
                g, p, u, w = _cut(buffers, slice(piece.at.stop - piece.at.start))
                run(update, count, p, g, u, w, *_cut(flat, piece.at))
            for p, u in zip(own, piece.us):
                xp.subtract(p, u, out=p)
        return params[0]

    def loops(xp: Any, step: Any, *arrays: Any, scratch: Scratch, **options: Any) -> Any:
        """What ``value`` means: each parameter on its own."""
        n = (len(arrays) - states) // 2
        count = None
        if step is not None:
            step += 1
            count = xp.number(step)
        dtype = scratch.dtype
        update = rule(xp, SymbolicNumbers(xp, dtype), **options)
        params, grads = arrays[states : states + n], arrays[states + n :]
        for p, g, start in zip(params, grads, scratch.starts):
            u, w = xp.empty(p.shape, dtype), xp.empty(p.shape, dtype)
            parts = [
                None if s is None else s[start : start + p.size].reshape(p.shape)
                for s in arrays[:states]
            ]
            update(count, p, g, u, w, *parts)
            xp.subtract(p, u, out=p)
        return params[0]

    context = watching(name)

    def overwritten(count: int) -> Iterable[int]:
        """The count, the states and the parameters."""
        return range(1 + states + (count - 1 - states) // 2)

    primitive = Primitive(
        name,
        value,
        {"step": None, "*arrays": None},
        mutates=overwritten,
        loops=loops,
        source=rule,
        kernel=name,
        live=("lr",),
    )
    BUNDLES[primitive] = states
    return primitive


def _in_chunks(
    xp: Any,
    update: Callable[..., None],
    piece: Piece,
    scratch: Scratch,
    states: Sequence[Any],
    p: Any,
    g: Any,
    reads_values: bool,
) -> None:
    """Update one large parameter, a chunk at a time."""
    values = p.reshape(-1)
    gradients = g.reshape(-1)
    for at, local in piece.chunks:
        g1, p1, u, w = _cut(scratch.buffers, slice(at.stop - at.start))
        part = values[local]
        if scratch.casts:
            g1[...] = gradients[local]
            if reads_values:
                p1[...] = part
        else:
            g1, p1 = gradients[local], part
        update(p1, g1, u, w, *_cut(states, at))
        xp.subtract(part, u, out=part)
    if not p.flags.c_contiguous:  # then values is a copy
        p[...] = values.reshape(p.shape)


def _cut(arrays: Sequence[Any], at: slice) -> list[Any]:
    return [None if a is None else a[at] for a in arrays]
