"""Attention: softmax of products of queries and keys, times values.

What is computed of arrays is in ``attention_blocks``, what programs make of it in
``attention_loops``; here are the rules that can be recorded, and the function.
"""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.dtypes import FLOATS, promote
from tensorgrad.dtypes import bool as boolean
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.observers import current_mode
from tensorgrad.ops.attention_blocks import (
    INPUTS,
    attention_gradient_value,
    attention_gradients,
    attention_value,
    stride_of,
)
from tensorgrad.ops.attention_loops import (
    attention_gradient_loops,
    attention_loops,
    dropping_gradient_loops,
    dropping_loops,
)
from tensorgrad.ops.creation import arange, asarray, zeros
from tensorgrad.ops.elementwise import equal, exp, logical_and, logical_not, where
from tensorgrad.ops.linear_algebra import matmul
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

# --- rules that can be recorded -------------------------------------------------------------------


#: What stands for -inf in scores that are not seen, so that nothing infinite is computed.
_LEAST = {"float16": -3.2e4, "bfloat16": -1.6e38, "float32": -1.6e38, "float64": -8e307}


def weights_of(q: Any, k: Any, mask: Any, causal: bool, scale: float) -> Any:
    """The weights of all queries and keys as a tensor of operations; 0 where nothing is seen."""
    s = matmul(q * scale, matrix_transpose(k))
    seen = None
    if mask is not None and mask.dtype == boolean:
        seen = mask
    elif mask is not None:
        hidden = equal(mask, -math.inf)
        s, seen = s + where(hidden, 0.0, mask), logical_not(hidden)
    if causal:
        rows, columns = (arange(n, device=s.device) for n in s.shape[-2:])
        before = reshape(rows, (-1, 1)) >= columns
        seen = before if seen is None else logical_and(seen, before)
    if not s.shape[-1]:
        return s
    if seen is not None:
        s = where(seen, s, _LEAST[str(s.dtype)])
    e = exp(s - maximum_of(s.detach(), axis=-1, keepdims=True))
    if seen is not None:
        e = where(seen, e, 0.0)
    sums = total(e, axis=-1, keepdims=True)
    return e / where(equal(sums, 0.0), 1.0, sums)


def _elementary(
    number: int, g: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Any
) -> Any:
    """The gradient of input ``number``, made of operations."""
    p = weights_of(q, k, mask, causal, scale)
    kept: Any = 1.0
    if drop is not None:
        key, position, rate = drop
        heads = np.broadcast_shapes(p.shape[:-2], v.shape[:-2])
        shape = (*heads, p.shape[-2], stride_of(p.shape[-1]))
        like = zeros(shape, dtype=p.dtype, device=p.device)
        attrs = {"key": key, "position": position, "p": rate}
        kept = apply(_MASK, (like,), attrs)[..., : p.shape[-1]]
    blind = equal(total(p.detach(), axis=-1, keepdims=True), 0.0)
    q, g = where(blind, 0.0, q), where(blind, 0.0, g)
    if number == 2:
        return matmul(matrix_transpose(p * kept), g)
    d = matmul(g, matrix_transpose(v)) * kept
    d = where(blind, 0.0, p * (d - total(d * p, axis=-1, keepdims=True)))
    if number == 0:
        return where(blind, 0.0, matmul(d, k) * scale)
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
        if q.shape == k.shape == v.shape:
            return found[number]
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


def _together(drops: bool, g: Any, needed: Sequence[bool], saved: Mapping[str, Any]) -> list[Any]:
    """All gradients at once, block by block; kernels make none of a mask, but the others' then."""
    if not needed[3]:
        return attention_gradients(g, needed, saved)
    op = _DROPPING if drops else _ATTENTION
    found = backend.of(g).gradients(op, g, (*needed[:3], False), saved)
    if found is None:
        return attention_gradients(g, needed, saved)
    return [*found[:3], attention_gradients(g, (False, False, False, True), saved)[3]]


def _dropping_value(
    xp: Any, q: Any, k: Any, v: Any, mask: Any,
    causal: bool, scale: float, key: int, position: int, p: float,
) -> Any:  # fmt: skip
    return attention_value(xp, q, k, v, mask, causal, scale, (key, position, p))


def _dropping_gradient_value(
    xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, r: Any,
    causal: bool, scale: float, of_mask: bool, key: int, position: int, p: float,
) -> Any:  # fmt: skip
    drop = key, position, p
    return attention_gradient_value(xp, g, q, k, v, mask, y, r, causal, scale, of_mask, drop)


def _flops(q: Any, k: Any, v: Any, mask: Any, out: Any) -> int:
    """Two products for each score, and its exponential, sum and scaling."""
    scores = math.prod(out.shape[:-1]) * k.shape[-2]
    return int(max(out.size, scores * (2 * (q.shape[-1] + v.shape[-1]) + 4)))


def _gradient_flops(g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, r: Any, out: Any) -> int:
    """Five products."""
    scores = math.prod(y.shape[:-1]) * k.shape[-2]
    return int(max(out.size, scores * (2 * (3 * q.shape[-1] + 2 * v.shape[-1]) + 6)))


_GRADIENT_INPUTS = dict.fromkeys(("g", *INPUTS, "y", "r"))
_ATTENTION: Primitive = Primitive(
    "attention",
    attention_value,
    {name: _rule(n, False) for n, name in enumerate(INPUTS)},
    promotion="float",
    promoted=frozenset({0, 1, 2}),
    half_in_float32=True,
    residual=lambda: None,
    loops=attention_loops,
    kernel="attention",
    together=partial(_together, False),
    fresh=True,
    autocast="half",
    flops=_flops,
)
_DROPPING: Primitive = Primitive(
    "attention_dropout",
    _dropping_value,
    {name: _rule(n, True) for n, name in enumerate(INPUTS)},
    promotion="float",
    promoted=frozenset({0, 1, 2}),
    half_in_float32=True,
    residual=lambda: None,
    loops=dropping_loops,
    kernel="attention",
    together=partial(_together, True),
    fresh=True,
    random=True,
    autocast="half",
    flops=_flops,
)
_ATTENTION_GRADIENT: Primitive = Primitive(
    "attention_gradient",
    attention_gradient_value,
    _GRADIENT_INPUTS,
    half_in_float32=True,
    loops=attention_gradient_loops,
    kernel="attention_gradient",
    fresh=True,
    flops=_gradient_flops,
)
_DROPPING_GRADIENT: Primitive = Primitive(
    "attention_dropout_gradient",
    _dropping_gradient_value,
    _GRADIENT_INPUTS,
    half_in_float32=True,
    loops=dropping_gradient_loops,
    kernel="attention_gradient",
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


def _in_dtype(mask: Any, dtype: Any) -> Any:
    """A mask of floats in the dtype of the scores."""
    if mask.dtype in (boolean, dtype) or dtype not in FLOATS:
        return mask
    return cast(mask, dtype)


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

    On a GPU kernels serve float32 and 16-bit floats with up to 128 features and three axes of heads
    (16-bit weights are rounded to 16 bits before they multiply values; sums are float32). Others,
    and the gradient of attn_mask, are computed there from larger blocks of scores, as on the CPU.

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
        attn_mask = _in_dtype(attn_mask, promote([x.dtype for x in given], []))
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
        words = math.prod(heads) * query.shape[-2] * stride_of(key.shape[-2])
        source = default_generator if generator is None else generator
        y = apply(_DROPPING, inputs, {**attrs, **source.advance(words), "p": rate})
    return reshape(y, (*y.shape[:-4], *shape[-3:-1], y.shape[-1])) if enable_gqa else y
