"""Attention of several heads: projections, masks and heads around ``attention``."""

# The operators inside come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import FLOATS
from tensorgrad.dtypes import bool as boolean
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.ops.attention import scaled_dot_product_attention, weights_of
from tensorgrad.ops.creation import arange, asarray, zeros
from tensorgrad.ops.elementwise import logical_not, logical_or, where
from tensorgrad.ops.linear_algebra import linear, matmul
from tensorgrad.ops.numbers import number
from tensorgrad.ops.precision import half_to_float32
from tensorgrad.ops.random import dropout
from tensorgrad.ops.reductions import mean
from tensorgrad.ops.shaping import broadcast_to, concat, permute_dims, reshape
from tensorgrad.ops.table import operation
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["multi_head_attention_forward"]

_NAME = "multi_head_attention_forward"


# --- heads ----------------------------------------------------------------------------------------
# Batched inputs have shape (length, batch, features), or (batch, length, features) if batch_first.


def project(
    query: Any, key: Any, value: Any, weights: Any, biases: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values for all heads.

    weights: three, or one of all (3 E, E). biases: one of all (3 E,), or ``None``. What is
    projected several times is so in one product.
    """
    size = query.shape[-1]
    if isinstance(weights, tuple):
        parts = weights
    elif query is key is value:
        y = linear(query, weights, biases)
        return y[..., :size], y[..., size : 2 * size], y[..., 2 * size :]
    elif key is value:
        q = linear(query, weights[:size], None if biases is None else biases[:size])
        y = linear(key, weights[size:], None if biases is None else biases[size:])
        return q, y[..., :size], y[..., size:]
    else:
        parts = weights[:size], weights[size : 2 * size], weights[2 * size :]
    given = [None] * 3
    if biases is not None:
        given = [biases[:size], biases[size : 2 * size], biases[2 * size :]]
    q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), parts, given, strict=True))
    return q, k, v


def split_heads(x: Any, heads: int, batch_first: bool) -> Tensor:
    """Features of all heads as (batch, heads, length, features of a head)."""
    apart = reshape(x, (*x.shape[:2], heads, x.shape[2] // heads))
    return permute_dims(apart, (0, 2, 1, 3) if batch_first else (1, 2, 0, 3))


def join_heads(x: Any, batch_first: bool) -> Tensor:
    """The reverse of ``split_heads``."""
    batch, heads, length, size = x.shape
    if batch_first:
        return reshape(permute_dims(x, (0, 2, 1, 3)), (batch, length, heads * size))
    return reshape(permute_dims(x, (2, 0, 1, 3)), (length, batch, heads * size))


def with_further_key(x: Any, further: Any) -> Tensor:
    """Keys or values (batch, heads, length, size) and one more, shape (E,) or ``None`` for 0."""
    batch, heads, _, size = x.shape
    if further is None:
        last = zeros((batch, heads, 1, size), dtype=x.dtype, device=x.device)
    else:
        further = further if further.dtype == x.dtype else cast(further, x.dtype)
        last = broadcast_to(reshape(further, (1, heads, 1, size)), (batch, heads, 1, size))
    return concat([x, last], axis=2)


# --- masks ----------------------------------------------------------------------------------------
# A mask is a tensor of truth values, True where a query does NOT see a key, or of floats that are
# added.


def attention_mask(
    name: str, query: Any, keys: int, heads: int, attn_mask: Any, key_padding_mask: Any
) -> Any:
    """Both masks as one that broadcasts to (batch, heads, queries, keys), or ``None``.

    query: (batch, heads, queries, size). Raises ShapeError, DtypeError for masks that do not fit.
    """
    batch, queries = query.shape[0], query.shape[2]
    found = None
    if attn_mask is not None:
        attn_mask = _checked(name, "attn_mask", attn_mask, query)
        wanted: tuple[Any, ...] = (queries, keys)
        if len(attn_mask.shape) == 3:
            wanted = (batch * heads, queries, keys)
        if attn_mask.shape != wanted:
            raise ShapeError(
                f"{name}: attn_mask must have shape ({queries}, {keys}), queries and keys, or "
                f"({batch * heads}, {queries}, {keys}); got {attn_mask.shape}"
            )
        found = attn_mask
        if len(wanted) == 3:
            found = reshape(attn_mask, (batch, heads, queries, keys))
    if key_padding_mask is not None:
        padding = _checked(name, "key_padding_mask", key_padding_mask, query)
        if padding.shape != (batch, keys) and (batch, padding.shape) != (1, (keys,)):
            raise ShapeError(
                f"{name}: key_padding_mask must have shape ({batch}, {keys}), batch and keys; got "
                f"{padding.shape}"
            )
        padding = reshape(padding, (batch, 1, 1, keys))
        found = padding if found is None else merged_masks(found, padding, query.dtype)
    return found


def _checked(name: str, what: str, mask: Any, like: Any) -> Any:
    if not hasattr(mask, "node"):
        mask = asarray(mask, device=like.device)
    if mask.dtype != boolean and mask.dtype not in FLOATS:
        raise DtypeError(
            f"{name}: {what} must hold truth values, True where a key is NOT seen, or floats, "
            f"which are added to the scores; got {mask.dtype}. Convert with .astype(bool)"
        )
    return mask


def merged_masks(a: Any, b: Any, dtype: Any) -> Any:
    """A mask by which a key is hidden if one of the two hides it."""
    if a.dtype == boolean == b.dtype:
        return logical_or(a, b)
    a, b = (
        where(x, -math.inf, zeros((), dtype=dtype, device=x.device)) if x.dtype == boolean else x
        for x in (a, b)
    )
    return a + b


def with_further_column(mask: Any) -> Any:
    """A mask for one key more, which all see."""
    if mask is None:
        return None
    last = zeros((*mask.shape[:-1], 1), dtype=mask.dtype, device=mask.device)
    return concat([mask, last], axis=-1)


def hidden_ahead(queries: int, keys: int, offset: int, device: str) -> Tensor:
    """True where key ``j`` lies after query ``offset + i``: (1, 1, queries, keys)."""
    rows = reshape(arange(queries, device=device), (1, 1, queries, 1))
    return arange(keys, device=device) > rows + offset


def attend(
    q: Any, k: Any, v: Any, mask: Any, causal: bool, dropout_p: float, weights: bool
) -> tuple[Tensor, Tensor | None]:
    """What the heads see, (batch, heads, queries, size), and the weights if they are wanted."""
    seen = logical_not(mask) if mask is not None and mask.dtype == boolean else mask
    if not weights:
        return scaled_dot_product_attention(q, k, v, seen, dropout_p, causal), None
    if mask is not None and mask.dtype != boolean:
        seen = half_to_float32(mask)
    scale = 1.0 / math.sqrt(q.shape[-1] or 1)
    p = weights_of(half_to_float32(q), half_to_float32(k), seen, causal, scale)
    p = dropout(p if p.dtype == v.dtype else cast(p, v.dtype), dropout_p)
    return matmul(p, v), p


# --- the function ---------------------------------------------------------------------------------


def _reference(
    query: Any, key: Any, value: Any, size: int, heads: int, w: Any, b: Any, bias_k: Any,
    bias_v: Any, zero: bool, p: float, out_w: Any, out_b: Any, key_padding_mask: Any = None,
    attn_mask: Any = None, average_attn_weights: bool = True,
) -> Any:  # fmt: skip
    parts = [x @ m.T + c for x, m, c in zip((query, key, value), np.split(w, 3), np.split(b, 3))]
    batch = query.shape[1]
    for n, one in ((1, bias_k), (2, bias_v)):
        rows = [parts[n]]
        if one is not None:
            rows.append(np.broadcast_to(one, (1, batch, size)))
        if zero:
            rows.append(np.zeros((1, batch, size)))
        parts[n] = np.concatenate(rows)
    q, k, v = (x.reshape(len(x), batch, heads, -1).transpose(1, 2, 0, 3) for x in parts)
    further = k.shape[2] - key.shape[0]
    s = q @ k.swapaxes(-1, -2) / np.sqrt(size // heads)
    hidden = np.zeros(s.shape, bool)
    if attn_mask is not None:
        hidden |= np.pad(attn_mask, ((0, 0), (0, further)))
    if key_padding_mask is not None:
        hidden |= np.pad(key_padding_mask, ((0, 0), (0, further)))[:, None, None]
    e = np.exp(s) * ~hidden
    weights = e / e.sum(-1, keepdims=True)
    y = (weights @ v).transpose(2, 0, 1, 3).reshape(*query.shape) @ out_w.T + out_b
    return y, weights.mean(1) if average_attn_weights else weights


@operation(
    cases=[
        lambda s: s(
            s.real(3, 2, 4), s.real(5, 2, 4), s.real(5, 2, 4), 4, 2, s.real(12, 4), s.real(12),
            None, None, False, 0.0, s.real(4, 4), s.real(4),
        ),
        lambda s: s(
            s.real(3, 1, 4), s.real(2, 1, 4), s.real(2, 1, 4), 4, 2, s.real(12, 4), s.real(12),
            s.real(1, 1, 4), s.real(1, 1, 4), True, 0.0, s.real(4, 4), s.real(4),
            key_padding_mask=s.bools(1, 2), attn_mask=s.bools(3, 2), average_attn_weights=False,
        ),
    ],
    reference=_reference,
    torch="nn.functional.multi_head_attention_forward",
    namespace="nn.functional",
    method=False, complex=False,
)  # fmt: skip
def multi_head_attention_forward(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of several heads, as ``nn.MultiheadAttention`` has it, with its parameters given.

    query: (L, N, E), key: (S, N, Ek), value: (S, N, Ev), or all of them without the batch N.
    embed_dim_to_check: E. in_proj_weight: (3 E, E); with use_separate_proj_weight (E, E), (E, Ek)
        and (E, Ev) in its place. in_proj_bias: (3 E,). bias_k, bias_v: (1, 1, E), a further key and
        value. add_zero_attn: one more, of zeros. static_k, static_v: (N * num_heads, S,
        E / num_heads), keys and values as they are. out_proj_weight: (E, E).
    dropout_p: of the weights, in training only.
    key_padding_mask: (N, S), attn_mask: (L, S) or (N * num_heads, L, S): True where a key is NOT
        seen, or floats that are added. is_causal: query i sees the keys 0 to i; a mask adds to it.

    Returns the output (L, N, E) and the weights: their mean over the heads (N, L, S), each head's
    (N, num_heads, L, S), or ``None`` without need_weights, which takes memory that grows with L and
    S and not with their product. Raises ShapeError and DtypeError for what does not fit.
    """
    query, key, value, batched = _with_batch(query, key, value)
    size = query.shape[-1]
    if size != embed_dim_to_check or size % num_heads:
        raise ShapeError(
            f"{_NAME}: the queries must have {embed_dim_to_check} features, a multiple of "
            f"num_heads={num_heads}; got {size}"
        )
    weights = in_proj_weight
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    q, k, v = project(query, key, value, weights, in_proj_bias)
    q = split_heads(q, num_heads, False)
    shape = (q.shape[0], num_heads, -1, size // num_heads)
    k = split_heads(k, num_heads, False) if static_k is None else reshape(static_k, shape)
    v = split_heads(v, num_heads, False) if static_v is None else reshape(static_v, shape)
    rate = float(number(_NAME, "dropout_p", dropout_p)) if training else 0.0
    mask = attention_mask(_NAME, q, k.shape[2], num_heads, attn_mask, key_padding_mask)
    y, found = attend_with_further_keys(
        q, k, v, mask, is_causal, rate, need_weights, bias_k, bias_v, add_zero_attn
    )
    output = linear(join_heads(y, False), out_proj_weight, out_proj_bias)
    if found is not None and average_attn_weights:
        found = mean(found, axis=1)
    if batched:
        return output, found
    return output[:, 0], None if found is None else found[0]


def _with_batch(query: Any, key: Any, value: Any) -> tuple[Tensor, Tensor, Tensor, bool]:
    """All three as tensors (length, batch, features), and whether they had a batch.

    An object that is several of them stays one.
    """
    given = {id(x): x if hasattr(x, "node") else asarray(x) for x in (query, key, value)}
    shapes = [given[id(x)].shape for x in (query, key, value)]
    if len(shapes[0]) not in (2, 3) or len({len(shape) for shape in shapes}) > 1:
        raise ShapeError(
            f"{_NAME}: query, key and value must have shape (length, batch, features), or all "
            f"(length, features); got {shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    batched = len(shapes[0]) == 3
    if not batched:
        given = {i: reshape(x, (x.shape[0], 1, x.shape[1])) for i, x in given.items()}
    return given[id(query)], given[id(key)], given[id(value)], batched


def attend_with_further_keys(
    q: Any, k: Any, v: Any, mask: Any, causal: bool, dropout_p: float, weights: bool,
    bias_k: Any, bias_v: Any, add_zero_attn: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """``attend`` to one key more, to which ``bias_k`` belongs, and to one of zeros."""
    if causal and (bias_k is not None or add_zero_attn):
        ahead = hidden_ahead(q.shape[2], k.shape[2], 0, q.device)
        mask, causal = ahead if mask is None else merged_masks(mask, ahead, q.dtype), False
    if bias_k is not None:
        k, v = with_further_key(k, bias_k), with_further_key(v, bias_v)
        mask = with_further_column(mask)
    if add_zero_attn:
        k, v = with_further_key(k, None), with_further_key(v, None)
        mask = with_further_column(mask)
    return attend(q, k, v, mask, causal, dropout_p, weights)
