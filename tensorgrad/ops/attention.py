"""Attention: softmax of products of queries and keys, times values, block by block.

The scores of all queries and keys never exist at once. Queries and keys are gone through in blocks;
the largest score of each row and the sum of its exponentials are kept up to date on the way (online
softmax), and the gradient computes the blocks again from the logarithm of that sum. So memory grows
with the length and not with its square. Sources: Milakov and Gimelshein, "Online normalizer
calculation for softmax" (2018); Dao and others, "FlashAttention" (2022).
"""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product as every
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend import is_array, philox
from tensorgrad.backend.namespace import Namespace
from tensorgrad.dtypes import FLOATS, HALVES, float32
from tensorgrad.dtypes import bool as boolean
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.observers import current_mode
from tensorgrad.ops.creation import arange, asarray, zeros
from tensorgrad.ops.elementwise import exp, where
from tensorgrad.ops.linear_algebra import matmul, product
from tensorgrad.ops.numbers import number
from tensorgrad.ops.random import _MASK, Generator, default_generator
from tensorgrad.ops.reductions import max as maximum_of
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import matrix_transpose, reshape
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply, cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]

#: So many scores are computed at a time, at most, and so many rows of one head.
_SCORES = 1 << 18
_ROWS = 256

Slices = tuple[slice, ...]


# --- blocks ---------------------------------------------------------------------------------------


class _Blocks:
    """The arrays of one call, and how they are cut.

    The axes before the last two, the heads, are broadcast and cut in groups; of a group the queries
    (rows) and keys (columns) are cut in blocks. ``drop`` is None or (key, position, p).
    """

    def __init__(
        self, xp: Any, inputs: Sequence[Any], causal: bool, scale: float, drop: Any
    ) -> None:
        q, k, v, mask = inputs
        self.xp, self.causal, self.scale, self.drop = xp, causal, scale, drop
        given = [x.shape[:-2] for x in inputs if x is not None]
        self.heads: tuple[int, ...] = np.broadcast_shapes(*given)
        self.rows, self.columns = q.shape[-2], k.shape[-2]
        self.q, self.k, self.v = (self.broadcast(_for_products(xp, x)) for x in (q, k, v))
        self.mask = mask
        if mask is not None:
            shape = (*self.heads, self.rows, self.columns)
            self.mask = xp.broadcast_to(mask, shape)
        self.height = min(self.rows, _ROWS)
        self.width = max(4, min(self.columns, _SCORES // max(1, self.height)) // 4 * 4)
        if self.rows * self.columns <= _SCORES:
            self.height, self.width = self.rows, self.columns

    def broadcast(self, x: Any) -> Any:
        """``x`` with the axes of all heads."""
        shape = (*self.heads, *x.shape[-2:])
        return x if x.shape == shape else self.xp.broadcast_to(x, shape)

    def groups(self) -> Iterator[Slices]:
        """Parts of the heads, each of which has as many as there is room for."""
        room = max(1, _SCORES // max(1, self.height * self.width))
        steps: list[int] = []
        for n in reversed(self.heads):
            steps.insert(0, max(1, min(n, room)))
            room = room // n if 0 < n <= room else 1
        cuts = [_cut(n, step) for n, step in zip(self.heads, steps, strict=True)]
        return every(*cuts)

    def row_blocks(self) -> list[slice]:
        """The blocks of queries."""
        return _cut(self.rows, self.height)

    def column_blocks(self, rows: slice) -> list[slice]:
        """The blocks of keys that some of the queries see."""
        return _cut(min(self.columns, rows.stop) if self.causal else self.columns, self.width)

    def scores(self, queries: Any, keys: Any, heads: Slices, rows: slice, columns: slice) -> Any:
        """The scores of a block, -inf where a query does not see a key."""
        xp = self.xp
        s = product(xp, queries, xp.swapaxes(keys, -1, -2))
        if self.mask is not None:
            mask = self.mask[(*heads, rows, columns)]
            s = xp.where(mask, s, s.dtype.type(-math.inf)) if mask.dtype == boolean else s + mask
        if self.causal and columns.stop - 1 > rows.start:
            seen = _numbers(xp, rows)[:, None] >= _numbers(xp, columns)
            s = xp.where(seen, s, s.dtype.type(-math.inf))
        return s

    def kept(self, like: Any, heads: Slices, rows: slice, columns: slice) -> Any:
        """What dropout multiplies the weights of a block with.

        It depends on the places of query and key alone, so it is the same for other blocks. The
        words of a row begin at a whole block of four.
        """
        xp = self.xp
        key, position, p = self.drop
        count = math.prod(self.heads)
        head = xp.arange(count, dtype=np.uint64).reshape(self.heads)[heads].reshape(-1, 1)
        row = head * np.uint64(self.rows) + _numbers(xp, rows).astype(np.uint64)
        words = philox.rows(
            xp, key, position + columns.start, row.reshape(-1), _stride(self.columns),
            columns.stop - columns.start,
        )  # fmt: skip
        factor = 0.0 if p == 1.0 else 1.0 / (1.0 - p)
        found = words >= np.uint32(min(round(p * 2.0**32), 2**32 - 1))
        return found.reshape(like.shape).astype(like.dtype) * like.dtype.type(factor)


def _cut(n: int, step: int) -> list[slice]:
    return [slice(k, min(k + step, n)) for k in range(0, n, max(1, step))]


def _numbers(xp: Any, part: slice) -> Any:
    return xp.arange(part.start, part.stop)


def _stride(columns: int) -> int:
    """How many words of a random stream a row of weights takes."""
    return -(-columns // 4) * 4


def _for_products(xp: Any, x: Any) -> Any:
    """``x``, copied if its matrices do not lie as a BLAS takes them: NumPy would do without one."""
    if xp is not np or x.size == 0:
        return x
    (rows, columns), (down, right) = x.shape[-2:], x.strides[-2:]
    size = x.itemsize
    fits = (right == size and down >= columns * size) or (down == size and right >= rows * size)
    return x if fits else np.ascontiguousarray(x)


# --- value ----------------------------------------------------------------------------------------


def _value(
    xp: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Any = None
) -> Any:
    if isinstance(xp, Namespace):
        return xp.refuse("attention goes block by block")
    blocks = _Blocks(xp, (q, k, v, mask), causal, scale, drop)
    y = xp.zeros((*blocks.heads, blocks.rows, v.shape[-1]), q.dtype)
    r = xp.zeros((*blocks.heads, blocks.rows, 1), q.dtype)
    for heads in blocks.groups():
        for rows in blocks.row_blocks():
            columns = blocks.column_blocks(rows)
            if columns:
                y[(*heads, rows)], r[(*heads, rows)] = _rows_of(blocks, heads, rows, columns)
    return y, r


def _rows_of(blocks: _Blocks, heads: Slices, rows: slice, columns: Sequence[slice]) -> Any:
    """The results of a block of queries, and the logarithms of the sums of exponentials.

    What sees no key gives 0, and 0 for the logarithm: so the exponentials of its scores are 0.
    """
    xp = blocks.xp
    queries = blocks.q[(*heads, rows)] * blocks.scale
    top: Any = None
    for part in columns:
        s = blocks.scores(queries, blocks.k[(*heads, part)], heads, rows, part)
        new = s.max(axis=-1, keepdims=True)
        if top is not None:
            new = xp.maximum(new, top)
        low = xp.where(new == -math.inf, s.dtype.type(0), new)
        s -= low
        xp.exp(s, out=s)
        found_sum = s.sum(axis=-1, keepdims=True)
        if blocks.drop is not None:
            s *= blocks.kept(s, heads, rows, part)
        found = product(xp, s, blocks.v[(*heads, part)])
        if top is None:
            y, sums = found, found_sum
        else:
            shrink = xp.exp(top - low)
            y = y * shrink + found
            sums = sums * shrink + found_sum
        top = new
    none = sums == 0
    sums = xp.where(none, sums.dtype.type(1), sums)
    return xp.where(none, y.dtype.type(0), y / sums), low + xp.log(sums)


# --- gradients ------------------------------------------------------------------------------------


def _gradients(blocks: _Blocks, g: Any, y: Any, r: Any, targets: Sequence[Any]) -> None:
    """Add the gradients of q, k, v and mask to ``targets``, arrays of their shapes or ``None``."""
    xp, g = blocks.xp, blocks.broadcast(_for_products(blocks.xp, g))
    into = [_Sum(xp, t, len(blocks.heads)) for t in targets]
    for heads in blocks.groups():
        for rows in blocks.row_blocks():
            here = (*heads, rows)
            queries, up = blocks.q[here] * blocks.scale, g[here]
            level = (up * y[here]).sum(axis=-1, keepdims=True)
            for columns in blocks.column_blocks(rows):
                there = (*heads, columns)
                p = blocks.scores(queries, blocks.k[there], heads, rows, columns)
                p -= r[here]
                xp.exp(p, out=p)
                d = product(xp, up, xp.swapaxes(blocks.v[there], -1, -2))
                weights = p
                if blocks.drop is not None:
                    kept = blocks.kept(p, heads, rows, columns)
                    d *= kept
                    weights = p * kept
                d -= level
                d *= p
                if targets[0] is not None:
                    into[0].add(heads, rows, product(xp, d, blocks.k[there]) * blocks.scale)
                if targets[1] is not None:
                    into[1].add(heads, columns, product(xp, xp.swapaxes(d, -1, -2), queries))
                if targets[2] is not None:
                    into[2].add(heads, columns, product(xp, xp.swapaxes(weights, -1, -2), up))
                if targets[3] is not None:
                    into[3].add(heads, rows, d, columns)


class _Sum:
    """The gradient of an array that was broadcast, to which parts are added.

    target: in the shape of the array. heads: how many axes lie before the last two.
    """

    def __init__(self, xp: Any, target: Any, heads: int) -> None:
        self.xp = xp
        if target is not None:
            target = target.reshape((1,) * (heads + 2 - target.ndim) + target.shape)
        self.target = target

    def add(self, heads: Slices, rows: slice, d: Any, columns: slice = slice(None)) -> None:
        """Add ``d``, the part for these heads, rows and columns."""
        parts = (*heads, rows, columns)
        shape = self.target.shape
        over = tuple(k for k, n in enumerate(shape) if n == 1 != d.shape[k])
        if over:
            d = d.sum(axis=over, keepdims=True)
        place = tuple(slice(None) if n == 1 else part for n, part in zip(shape, parts))
        self.target[place] += d


def _gradient_value(
    xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, r: Any,
    causal: bool, scale: float, of_mask: bool, drop: Any = None,
) -> Any:  # fmt: skip
    """The gradients of q, k and v one after the other, flat; or that of the mask."""
    if isinstance(xp, Namespace):
        return xp.refuse("attention goes block by block")
    blocks = _Blocks(xp, (q, k, v, mask), causal, scale, drop)
    if of_mask:
        found = xp.zeros(mask.shape, g.dtype)
        _gradients(blocks, g, y, r, (None, None, None, found))
        return found
    flat = xp.zeros(q.size + k.size + v.size, g.dtype)
    ends = q.size, q.size + k.size
    parts = flat[: ends[0]], flat[ends[0] : ends[1]], flat[ends[1] :]
    shaped = [part.reshape(x.shape) for part, x in zip(parts, (q, k, v))]
    _gradients(blocks, g, y, r, (*shaped, None))
    return flat


def _together(g: Any, needed: Sequence[bool], saved: Any) -> list[Any]:
    """All gradients that are needed at once, where nothing is recorded."""
    xp = backend.of(g).xp
    dtype = g.dtype

    def wide(x: Any) -> Any:
        return x.astype(float32) if getattr(x, "dtype", None) in HALVES else x

    inputs = [wide(saved[name]) for name in _INPUTS]
    g = wide(g)
    found = [xp.zeros(x.shape, g.dtype) if wanted else None for x, wanted in zip(inputs, needed)]
    drop = (saved["key"], saved["position"], saved["p"]) if "p" in saved else None
    blocks = _Blocks(xp, inputs, saved["causal"], saved["scale"], drop)
    _gradients(blocks, g, wide(saved["y"]), saved["r"], found)
    return [None if d is None else d.astype(dtype, copy=False) for d in found]


# --- rules that can be recorded -------------------------------------------------------------------


def weights_of(q: Any, k: Any, mask: Any, causal: bool, scale: float) -> Any:
    """The weights of all queries and keys as a tensor of operations; 0 where nothing is seen."""
    s = matmul(q * scale, matrix_transpose(k))
    if mask is not None:
        s = where(mask, s, -math.inf) if mask.dtype == boolean else s + mask
    if causal:
        rows, columns = (arange(n, device=s.device) for n in s.shape[-2:])
        s = where(reshape(rows, (-1, 1)) >= columns, s, -math.inf)
    if not s.shape[-1]:
        return s
    top = maximum_of(s.detach(), axis=-1, keepdims=True)
    e = exp(s - where(top == -math.inf, 0.0, top))
    sums = total(e, axis=-1, keepdims=True)
    return e / where(sums == 0.0, 1.0, sums)


def _elementary(
    number: int, g: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Any
) -> Any:
    """The gradient of input ``number``, made of operations."""
    p = weights_of(q, k, mask, causal, scale)
    kept: Any = 1.0
    if drop is not None:
        key, position, rate = drop
        shape = (*p.shape[:-1], _stride(p.shape[-1]))
        ones = zeros(shape, dtype=p.dtype, device=p.device)
        attrs = {"key": key, "position": position, "p": rate}
        kept = apply(_MASK, (ones,), attrs)[..., : p.shape[-1]]
    if number == 2:
        return matmul(matrix_transpose(p * kept), g)
    d = matmul(g, matrix_transpose(v)) * kept
    d = p * (d - total(d * p, axis=-1, keepdims=True))
    if number == 0:
        return matmul(d, k) * scale
    if number == 1:
        return matmul(matrix_transpose(d), q) * scale
    return cast(d, mask.dtype)


def _rule(number: int, drops: bool) -> Callable[..., Any]:
    """The rule of input ``number``."""

    def rule(
        g: Any, y: Any, r: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float,
        drop: Any = None,
    ) -> Any:  # fmt: skip
        if not is_array(g) and current_mode().grad:
            return _elementary(number, g, q, k, v, mask, causal, scale, drop)
        attrs = {"causal": causal, "scale": scale, "of_mask": number == 3}
        if drop is not None:
            attrs.update(zip(("key", "position", "p"), drop))
        op = _ATTENTION_GRADIENT if drop is None else _DROPPING_GRADIENT
        found = apply(op, (g, q, k, v, mask, y, r), attrs)
        if number == 3:
            return found
        sizes = [math.prod(x.shape) for x in (q, k, v)]
        start = sum(sizes[:number])
        return reshape(found[start : start + sizes[number]], (q, k, v)[number].shape)

    if not drops:
        return lambda g, y, r, q, k, v, mask, causal, scale: rule(
            g, y, r, q, k, v, mask, causal, scale
        )
    return lambda g, y, r, q, k, v, mask, causal, scale, key, position, p: rule(
        g, y, r, q, k, v, mask, causal, scale, (key, position, p)
    )


def _dropping_value(
    xp: Any, q: Any, k: Any, v: Any, mask: Any,
    causal: bool, scale: float, key: int, position: int, p: float,
) -> Any:  # fmt: skip
    return _value(xp, q, k, v, mask, causal, scale, (key, position, p))


def _dropping_gradient_value(
    xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, r: Any,
    causal: bool, scale: float, of_mask: bool, key: int, position: int, p: float,
) -> Any:  # fmt: skip
    drop = key, position, p
    return _gradient_value(xp, g, q, k, v, mask, y, r, causal, scale, of_mask, drop)


def _flops(q: Any, k: Any, v: Any, mask: Any, out: Any) -> int:
    """Two products for each score, and its exponential, sum and scaling."""
    scores = math.prod(out.shape[:-1]) * k.shape[-2]
    return int(max(out.size, scores * (2 * (q.shape[-1] + v.shape[-1]) + 4)))


def _gradient_flops(g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, r: Any, out: Any) -> int:
    """Five products."""
    scores = math.prod(y.shape[:-1]) * k.shape[-2]
    return int(max(out.size, scores * (2 * (3 * q.shape[-1] + 2 * v.shape[-1]) + 6)))


_INPUTS = ("q", "k", "v", "mask")
_GRADIENT_INPUTS = dict.fromkeys(("g", *_INPUTS, "y", "r"))
_ATTENTION: Primitive = Primitive(
    "attention",
    _value,
    {name: _rule(n, False) for n, name in enumerate(_INPUTS)},
    promotion="float",
    promoted=frozenset({0, 1, 2}),
    half_in_float32=True,
    residual=lambda: None,
    together=_together,
    fresh=True,
    autocast="half",
    flops=_flops,
)
_DROPPING: Primitive = Primitive(
    "attention_dropout",
    _dropping_value,
    {name: _rule(n, True) for n, name in enumerate(_INPUTS)},
    promotion="float",
    promoted=frozenset({0, 1, 2}),
    half_in_float32=True,
    residual=lambda: None,
    together=_together,
    fresh=True,
    random=True,
    autocast="half",
    flops=_flops,
)
_ATTENTION_GRADIENT: Primitive = Primitive(
    "attention_gradient",
    _gradient_value,
    _GRADIENT_INPUTS,
    half_in_float32=True,
    fresh=True,
    flops=_gradient_flops,
)
_DROPPING_GRADIENT: Primitive = Primitive(
    "attention_dropout_gradient",
    _dropping_gradient_value,
    _GRADIENT_INPUTS,
    half_in_float32=True,
    fresh=True,
    random=True,
    flops=_gradient_flops,
)


# --- the function ---------------------------------------------------------------------------------


def _reference(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if enable_gqa:
        count = query.shape[-3] // key.shape[-3]
        key, value = (np.repeat(x, count, axis=-3) for x in (key, value))
    s = query @ key.swapaxes(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    seen: Any = np.tri(*s.shape[-2:], dtype=bool) if is_causal else True
    if attn_mask is not None and attn_mask.dtype == bool:
        seen = seen & attn_mask
    elif attn_mask is not None:
        s = s + attn_mask
    e = np.exp(s) * seen
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300) @ value


def _check_shapes(query: Any, key: Any, value: Any, grouped: bool) -> None:
    shapes = query.shape, key.shape, value.shape
    text = f"got {shapes[0]}, {shapes[1]} and {shapes[2]}"
    name = "scaled_dot_product_attention"
    if min(map(len, shapes)) < 2:
        raise ShapeError(f"{name}: query, key and value need two axes, (length, features); {text}")
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(
            f"{name}: query and key must have as many features, their last axis; {text}"
        )
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(f"{name}: there must be a value for each key, along axis -2; {text}")
    if grouped:
        if min(map(len, shapes)) < 3:
            raise ShapeError(
                f"{name}: with enable_gqa query, key and value need an axis -3 for heads; {text}"
            )
        many, few = query.shape[-3], key.shape[-3]
        if few != value.shape[-3] or not few or many % few:
            raise ShapeError(
                f"{name}: with enable_gqa keys and values must have one number of heads, axis -3, "
                f"which divides that of the queries; {text}"
            )
    elif not _broadcast(*(shape[:-2] for shape in shapes)):
        raise ShapeError(f"{name}: the axes before the last two must broadcast; {text}")


def _broadcast(*shapes: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def _check_mask(query: Any, key: Any, mask: Any) -> None:
    name = "scaled_dot_product_attention"
    if mask.dtype != boolean and mask.dtype not in FLOATS:
        raise DtypeError(
            f"{name}: attn_mask must hold truth values (True: the query sees the key) or floats, "
            f"which are added to the scores; got {mask.dtype}. Convert with .astype(bool)"
        )
    wanted = (*query.shape[:-1], key.shape[-2])
    if (
        not _broadcast(mask.shape, wanted)
        or np.broadcast_shapes((1, 1), mask.shape[-2:], wanted[-2:]) != wanted[-2:]
    ):
        raise ShapeError(
            f"{name}: attn_mask must broadcast to a number for each query and key, "
            f"(..., {wanted[-2]}, {wanted[-1]}); got {mask.shape}"
        )


def _grouped(query: Any, key: Any, value: Any, mask: Any) -> tuple[Any, Any, Any, Any]:
    """Heads of queries in groups, one for each head of keys and values: axes -4 and -3."""
    few = key.shape[-3]
    many = query.shape[-3] // few
    query = reshape(query, (*query.shape[:-3], few, many, *query.shape[-2:]))
    key, value = (reshape(x, (*x.shape[:-2], 1, *x.shape[-2:])) for x in (key, value))
    if mask is not None and len(mask.shape) > 2:
        heads = (1, 1) if mask.shape[-3] == 1 else (few, many)
        mask = reshape(mask, (*mask.shape[:-3], *heads, *mask.shape[-2:]))
    return query, key, value, mask


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4), s.real(2, 5, 4), s.real(2, 5, 3)),
        lambda s: s(s.real(3, 4), s.real(2, 5, 4), s.real(5, 3), s.bools(3, 5), scale=0.7),
        lambda s: s(s.real(2, 3, 4), s.real(2, 5, 4), s.real(2, 5, 3), s.real(2, 1, 5)),
        lambda s: s(
            s.real(4, 3, 2), s.real(2, 4, 2), s.real(2, 4, 2), is_causal=True, enable_gqa=True
        ),
        lambda s: s(s.real(0, 3, 4), s.real(0, 5, 4), s.real(0, 5, 3)),
    ],
    reference=_reference,
    torch="nn.functional.scaled_dot_product_attention",
    namespace="nn.functional",
    method=False,
    primitive=_ATTENTION,
)
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``softmax(query @ key.mT * scale + mask) @ value`` (Vaswani and others, 2017).

    query: shape (..., L, E). key: (..., S, E). value: (..., S, Ev). The axes before broadcast.
    attn_mask: truth values, True where a query sees a key, or floats that are added; it broadcasts
        to (..., L, S). is_causal: query i sees the keys 0 to i. Of both, both hold.
    dropout_p: the probability that a weight is dropped, always, whoever trains or not; the others
        are scaled by 1 / (1 - p). generator: the source; the default one if ``None``.
    scale: 1 / sqrt(E) by default.
    enable_gqa: the queries have several times as many heads, axis -3, as keys and values have
        (Ainslie and others, 2023); consecutive ones share a head of these.

    Returns (..., L, Ev). A query that sees no key gives 0, and has gradient 0. Memory grows with L
    and S, not with their product, unless gradients of gradients are asked for.

    Raises ShapeError for shapes that do not fit, DtypeError for a mask of integers, ValueError for
    a probability outside [0, 1].
    """
    first = next((x for x in (query, key, value) if hasattr(x, "node")), None)
    device = None if first is None else first.device
    given = [x if hasattr(x, "node") else asarray(x, device=device) for x in (query, key, value)]
    query, key, value = given
    _check_shapes(query, key, value, enable_gqa)
    if attn_mask is not None:
        if not hasattr(attn_mask, "node"):
            attn_mask = asarray(attn_mask, device=query.device)
        _check_mask(query, key, attn_mask)
    name = "scaled_dot_product_attention"
    rate = float(number(name, "dropout_p", dropout_p))
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{name}: dropout_p must be between 0 and 1; got {dropout_p}")
    if scale is None:
        scale = 1.0 / math.sqrt(query.shape[-1] or 1)
    attrs = {"causal": bool(is_causal), "scale": float(number(name, "scale", scale))}
    shape = query.shape
    if enable_gqa:
        query, key, value, attn_mask = _grouped(query, key, value, attn_mask)
    inputs = query, key, value, attn_mask
    if not rate:
        y = apply(_ATTENTION, inputs, attrs)
    else:
        heads = np.broadcast_shapes(*(x.shape[:-2] for x in inputs if x is not None))
        words = math.prod(heads) * query.shape[-2] * _stride(key.shape[-2])
        source = default_generator if generator is None else generator
        y = apply(_DROPPING, inputs, {**attrs, **source.advance(words), "p": rate})
    return reshape(y, (*y.shape[:-4], *shape[-3:-1], y.shape[-1])) if enable_gqa else y
