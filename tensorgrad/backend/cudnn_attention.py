"""Attention of 16-bit floats by cuDNN, forward and backward.

Without a mask, or causal: of a query that sees no key the library gives NaN, and where there are
such queries is known on the device alone. Keys and values may have fewer heads than queries.

Source of names and rules: the documentation of NVIDIA/cudnn-frontend, "Attention".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.backend.base import Array
from tensorgrad.backend.cudnn import ALIGNMENT, TYPES, Cudnn, Layout, Sizes, of, written
from tensorgrad.backend.gemm import row_major
from tensorgrad.dtypes import HALVES, float32


class Attention(NamedTuple):
    """What is asked: attention, or the gradients of its queries, keys and values.

    kind: "sdpa", of q, k and v, which writes the results and the logarithms of the sums of
    exponentials; or "sdpa_backward", of these five and the gradient of the results, which writes
    those of q, k and v. given, written: how they lie in this order, with an axis for examples and
    one for heads. scale: what scores are multiplied with.
    """

    kind: str
    dtype: np.dtype[Any]
    given: tuple[Layout, ...]
    written: tuple[Layout, ...]
    causal: bool
    scale: float
    tf32: bool = False

    def __str__(self) -> str:
        shapes = ", ".join(str(layout[0]) for layout in self.given[:3])
        return f"{self.kind} of {shapes} in {self.dtype}"


def attention_graph(library: Any, graph: Any, key: Attention) -> None:
    """Describe attention: what is given has the numbers from 1, what is written those after."""
    backward = key.kind == "sdpa_backward"
    given = [
        graph.tensor(
            dim=list(shape), stride=list(strides), uid=uid,
            data_type=_type(library, float32 if backward and uid == 5 else key.dtype),
        )
        for uid, (shape, strides) in enumerate(key.given, 1)
    ]  # fmt: skip
    options = {"attn_scale": key.scale, "use_causal_mask": key.causal}
    if backward:
        q, k, v, y, sums, g = given
        made = graph.sdpa_backward(
            q=q, k=k, v=v, o=y, dO=g, stats=sums, use_deterministic_algorithm=True, **options
        )
        dtypes = [key.dtype] * 3
    else:
        made = graph.sdpa(**dict(zip("qkv", given)), generate_stats=True, **options)
        dtypes = [key.dtype, float32]
    for uid, (tensor, layout, dtype) in enumerate(zip(made, key.written, dtypes), len(given) + 1):
        written(library, tensor, layout, dtype, uid)


def _type(library: Any, dtype: np.dtype[Any]) -> Any:
    return getattr(library.data_type, TYPES[dtype])


# --- heads ----------------------------------------------------------------------------------------


class Heads(NamedTuple):
    """How the axes before the last two are examples and heads.

    lead: their sizes. batch: how many of them are examples; the others are heads, and where these
    are two, those along the last one share keys and values.
    """

    lead: Sizes
    batch: int


@lru_cache(maxsize=1024)
def heads_of(q: Sizes, k: Sizes, v: Sizes) -> Heads | None:
    """The heads of arrays of these shapes; ``None`` where they broadcast otherwise, have no
    elements, or no multiples of 8 features."""
    lead = q[:-2]
    count = len(lead)
    if 0 in (*q, *k, *v) or q[-1] % 8 or v[-1] % 8:
        return None
    few = [(1,) * (count + 2 - len(x)) + x[:-2] for x in (k, v)]
    if few[0] == few[1] == lead:
        return Heads(lead, max(0, count - 1))
    if few[0] == few[1] == (*lead[:-1], 1):
        return Heads(lead, max(0, count - 2))
    return None


@lru_cache(maxsize=4096)
def _folded(shape: Sizes, strides: Sizes, item: int, heads: Heads) -> Layout | None:
    """How an array lies with one axis for examples and one for heads; ``None`` if cuDNN cannot take
    it so. strides: in bytes, ``item`` to an element."""
    missing = len(heads.lead) + 2 - len(shape)
    shape = (*[1] * missing, *shape)
    strides = (*[0] * missing, *[s // item for s in strides])
    rows, columns = shape[-2:]
    found = []
    for part in (slice(None, heads.batch), slice(heads.batch, -2)):
        size, step = 1, 0
        for n, stride in zip(reversed(shape[part]), reversed(strides[part])):
            if n == 1:
                continue
            if step and stride != step * size:
                return None
            step, size = step or stride, size * n
        found.append((size, step or rows * columns))
    found.append((rows, strides[-2] if rows > 1 else columns))
    if any(s <= 0 or s * item % ALIGNMENT for _, s in found) or strides[-1] != 1:
        return None
    dims, steps = zip(*found, (columns, 1))
    return dims, steps


def _laid(x: Array, heads: Heads) -> tuple[Array, Layout]:
    """``x`` and how it lies; a copy where cuDNN cannot take it so."""
    layout = _folded(x.shape, x.strides, x.itemsize, heads)
    if layout is None or x.data.ptr % ALIGNMENT:
        x = x.copy(order="C")
        layout = _folded(x.shape, x.strides, x.itemsize, heads)
        assert layout is not None
    return x, layout


def _like(xp: Any, x: Array, shape: Sizes) -> Array:
    """A new array of ``shape``, (examples, heads, length, features), its heads where ``x`` has
    them: before the length, or behind it as projections leave them."""
    if x.ndim == 4 and x.strides[1] < x.strides[2] and not x.flags.c_contiguous:
        turned = xp.empty((shape[0], shape[2], shape[1], shape[3]), x.dtype)
        return turned.transpose(0, 2, 1, 3)
    return xp.empty(shape, x.dtype)


# --- attention ------------------------------------------------------------------------------------


def _attends(q: Array, k: Array, v: Array) -> tuple[Cudnn, Heads] | None:
    """cuDNN and the heads, where it can be given arrays of such dtypes and shapes."""
    if q.dtype not in HALVES or not q.dtype == k.dtype == v.dtype:
        return None
    made = of(q)
    heads = None if made is None else heads_of(q.shape, k.shape, v.shape)
    return None if made is None or heads is None else (made, heads)


def _run(
    xp: Any, made: Cudnn, kind: str, heads: Heads, given: list[Array], sums: Array,
    into: list[Array], causal: bool, scale: float,
) -> bool:  # fmt: skip
    """Execute it, if there is a plan. The sums are the fifth of all arrays: written by the one,
    read by the other."""
    laid = [_laid(x, heads) for x in given]
    places = [_laid(x, heads)[1] for x in into]
    parts = heads.lead[: heads.batch], heads.lead[heads.batch :]
    shape = (*map(math.prod, parts), sums.shape[-2], 1)
    arrays, layouts = [x for x, _ in laid] + into, [layout for _, layout in laid] + places
    arrays.insert(4, sums)
    layouts.insert(4, (shape, row_major(shape)))
    first = 3 if kind == "sdpa" else 6
    key = Attention(
        kind, given[0].dtype, tuple(layouts[:first]), tuple(layouts[first:]), causal, scale
    )
    return made.run(xp, key, attention_graph, [x.data.ptr for x in arrays])


def attention(
    xp: Any, q: Array, k: Array, v: Array, causal: bool, scale: float
) -> tuple[Array, Array] | None:
    """Attention of 16-bit floats, and the logarithm of the sum of each row's exponentials.

    q: (..., L, E). k: (..., S, E). v: (..., S, Ev), read as they lie. The axes before are equal, or
    the last of them is 1 for keys and values: so many heads of queries share one of these. The
    logarithms are float32, (..., L, 1). ``None`` where cuDNN does not do it.
    """
    found = _attends(q, k, v)
    if found is None:
        return None
    made, heads = found
    y = _like(xp, q, (*q.shape[:-1], v.shape[-1]))
    sums = xp.empty((*q.shape[:-1], 1), float32)
    done = _run(xp, made, "sdpa", heads, [q, k, v], sums, [y], causal, scale)
    return (y, sums) if done else None


def attention_gradients(
    xp: Any, g: Array, q: Array, k: Array, v: Array, y: Array, sums: Array, causal: bool,
    scale: float, into: Sequence[Array] | None = None,
) -> Sequence[Array] | None:  # fmt: skip
    """The gradients of q, k and v, in a fixed order of sums.

    g: that of the results ``y``; y, sums: what ``attention`` gives. into: what they are written to;
    new arrays that lie as q, k and v do if ``None``.
    """
    found = _attends(q, k, v)
    if found is None or not g.dtype == y.dtype == q.dtype or sums.dtype != float32:
        return None
    made, heads = found
    sums = sums if sums.flags.c_contiguous else sums.copy(order="C")
    if into is None:
        into = [_like(xp, x, x.shape) for x in (q, k, v)]
    given = [q, k, v, y, g]
    done = _run(xp, made, "sdpa_backward", heads, given, sums, list(into), causal, scale)
    return into if done else None
