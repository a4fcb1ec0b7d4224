"""MultiheadAttention, the cache of keys and values for generation, and positions."""

from __future__ import annotations

from typing import Any

from tensorgrad import dtypes
from tensorgrad.autograd.modes import no_grad
from tensorgrad.errors import GradientError, ShapeError
from tensorgrad.nn import init
from tensorgrad.nn.fit import Misfit, last_axis
from tensorgrad.nn.layers import Linear
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.observers import current_mode
from tensorgrad.ops.creation import arange, empty, zeros
from tensorgrad.ops.elementwise import cos, sin
from tensorgrad.ops.multi_head_attention import (
    attend_with_further_keys,
    attention_mask,
    hidden_ahead,
    join_heads,
    merged_masks,
    project,
    split_heads,
)
from tensorgrad.ops.positions import angles, rotary_embedding
from tensorgrad.ops.random import Generator, dropout
from tensorgrad.ops.reductions import mean
from tensorgrad.ops.shaping import expand_dims, reshape, stack
from tensorgrad.tensor import Tensor

__all__ = [
    "KeyValueCache", "MultiheadAttention", "RotaryEmbedding", "SinusoidalPositionalEncoding",
]  # fmt: skip


def check_probability(name: str, what: str, p: float) -> None:
    """Raise ValueError unless ``p`` is a probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: {what} must lie in [0, 1], got {p!r}")


class KeyValueCache:
    """The keys and values of all positions so far, for generation token by token.

    batch_size, num_heads, max_length, head_dim: the memory is there from the start; what is
        appended is written into it.
    value_dim: features of a value, if it is not ``head_dim``. device, dtype: the defaults if
        ``None``.

    ``length`` says how many positions are there. Raises ValueError for sizes that are not positive
    integers.
    """

    def __init__(
        self,
        batch_size: int,
        num_heads: int,
        max_length: int,
        head_dim: int,
        value_dim: int | None = None,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        value_dim = head_dim if value_dim is None else value_dim
        check_sizes(
            "KeyValueCache",
            batch_size=batch_size,
            num_heads=num_heads,
            max_length=max_length,
            head_dim=head_dim,
            value_dim=value_dim,
        )
        shape = (batch_size, num_heads, max_length)
        self.keys = zeros((*shape, head_dim), dtype=dtype, device=device)
        self.values = zeros((*shape, value_dim), dtype=dtype, device=device)
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write down what follows, (batch_size, num_heads, L, size); all keys and values so far.

        What is returned shares the cache's memory. Raises ShapeError for another shape or if there
        is no room left, GradientError for tensors that require a gradient, which would be lost.
        """
        end = self.length + keys.shape[2] if len(keys.shape) == 4 else 0
        for name, held, new in (("keys", self.keys, keys), ("values", self.values, values)):
            wanted = (*held.shape[:2], end - self.length, held.shape[3])
            if new.shape != wanted:
                raise ShapeError(
                    f"KeyValueCache: {name} must have shape ({held.shape[0]}, {held.shape[1]}, L, "
                    f"{held.shape[3]}), L the same for keys and values; got {new.shape}"
                )
            if new.requires_grad and current_mode().grad:
                raise GradientError(
                    f"KeyValueCache: {name} require a gradient, which does not pass through a "
                    "cache; generate under tg.no_grad()"
                )
        if end > self.keys.shape[2]:
            raise ShapeError(
                f"KeyValueCache: {end} positions are more than max_length={self.keys.shape[2]}; "
                "make a longer one, or reset() it"
            )
        with no_grad():
            self.keys[:, :, self.length : end] = keys
            self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reset(self) -> None:
        """Forget all positions; the memory stays."""
        self.length = 0

    def __repr__(self) -> str:
        return f"KeyValueCache(length={self.length}, keys={self.keys.shape})"


class MultiheadAttention(Module):
    """Attention of several heads (Vaswani and others, 2017).

    embed_dim: features of queries and of the output, a multiple of num_heads.
    dropout: the probability that a weight is dropped in training.
    bias: False for projections without. add_bias_kv: a further key and value that are trained.
    add_zero_attn: a further key and value of zeros. kdim, vdim: features of keys and values, if
        they are not embed_dim.
    batch_first: whether inputs have shape (batch, length, features), and not (length, batch,
        features).
    device, dtype, generator: as in Linear.

    The parameters have PyTorch's names and first values: Xavier's for the projections in, 0 for
    the biases. Raises ValueError for sizes or a probability that cannot be.
    """

    _shown = ("embed_dim", "num_heads", "dropout", "batch_first")

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        name = "MultiheadAttention"
        kdim = embed_dim if kdim is None else kdim
        vdim = embed_dim if vdim is None else vdim
        check_sizes(name, embed_dim=embed_dim, num_heads=num_heads, kdim=kdim, vdim=vdim)
        if embed_dim % num_heads:
            raise ValueError(
                f"{name}: embed_dim must be a multiple of num_heads; got {embed_dim} and "
                f"{num_heads}"
            )
        check_probability(name, "dropout", dropout)
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.kdim, self.vdim, self.batch_first = kdim, vdim, batch_first
        self.head_dim, self.add_zero_attn = embed_dim // num_heads, add_zero_attn

        def parameter(*shape: int) -> Parameter:
            return Parameter(empty(shape, device=device, dtype=dtype))

        self.in_proj_weight: Parameter | None = None
        if kdim == embed_dim == vdim:
            self.in_proj_weight = parameter(3 * embed_dim, embed_dim)
        else:
            self.q_proj_weight = parameter(embed_dim, embed_dim)
            self.k_proj_weight = parameter(embed_dim, kdim)
            self.v_proj_weight = parameter(embed_dim, vdim)
        self.in_proj_bias = parameter(3 * embed_dim) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, device, dtype, generator)
        self.bias_k = parameter(1, 1, embed_dim) if add_bias_kv else None
        self.bias_v = parameter(1, 1, embed_dim) if add_bias_kv else None
        self._draw(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values."""
        self.out_proj.reset_parameters(generator)
        self._draw(generator)

    def _draw(self, generator: Generator | None) -> None:
        weights = self._weights()
        for w in weights if isinstance(weights, tuple) else (weights,):
            init.xavier_uniform_(w, generator=generator)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        if self.bias_k is not None and self.bias_v is not None:
            init.xavier_normal_(self.bias_k, generator=generator)
            init.xavier_normal_(self.bias_v, generator=generator)

    def _weights(self) -> Any:
        if self.in_proj_weight is not None:
            return self.in_proj_weight
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The output, in the shape of ``query``, and the weights (N, L, S).

        query: (L, N, embed_dim), key: (S, N, kdim), value: (S, N, vdim); the batch N first with
        batch_first; or all without it.
        key_padding_mask: (N, S), attn_mask: (L, S) or (N * num_heads, L, S): True where a key is
            NOT seen, or floats that are added. A query that sees no key gives the bias alone.
        need_weights: False gives ``None`` for the weights, and takes memory that grows with L and S
            and not with their product. average_attn_weights: False for those of each head, (N,
            num_heads, L, S).
        is_causal: query i sees the keys 0 to i; a mask hides more.
        cache: what came before; ``key`` and ``value`` are appended, S counts all, and with
            is_causal the queries are the last of all.

        Raises ShapeError, DtypeError for what does not fit.
        """
        self._check_shapes(query, key, value)
        single = len(query.shape) == 2
        batch_first = self.batch_first or single
        if single:  # an object that is all three stays one
            wide = {id(x): expand_dims(x, 0) for x in (query, key, value)}
            query, key, value = wide[id(query)], wide[id(key)], wide[id(value)]
        q, k, v = (
            split_heads(x, self.num_heads, batch_first)
            for x in project(query, key, value, self._weights(), self.in_proj_bias)
        )
        before = 0
        if cache is not None:
            before = cache.length
            k, v = cache.append(k, v)
        mask = attention_mask(
            "MultiheadAttention", q, k.shape[2], self.num_heads, attn_mask, key_padding_mask
        )
        if is_causal and before:
            if q.shape[2] > 1:
                ahead = hidden_ahead(q.shape[2], k.shape[2], before, q.device)
                mask = ahead if mask is None else merged_masks(mask, ahead, q.dtype)
            is_causal = False
        rate = self.dropout if self.training else 0.0
        further = self.bias_k, self.bias_v, self.add_zero_attn
        y, weights = attend_with_further_keys(
            q, k, v, mask, is_causal, rate, need_weights, *further
        )
        output: Tensor = self.out_proj(join_heads(y, batch_first))
        if weights is not None and average_attn_weights:
            weights = mean(weights, axis=1)
        if single:
            return output[0], None if weights is None else weights[0]
        return output, weights

    def _check_shapes(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        shapes = [x.shape for x in (query, key, value)]
        ranks = {len(shape) for shape in shapes}
        fits = ranks <= {2} or ranks <= {3}
        fits = fits and [s[-1] for s in shapes] == [self.embed_dim, self.kdim, self.vdim]
        if fits:
            batch, length = (0, 1) if self.batch_first and 3 in ranks else (1, 0)
            one_batch = 2 in ranks or len({s[batch] for s in shapes}) == 1
            fits = one_batch and shapes[1][length] == shapes[2][length]
        if not fits:
            raise ShapeError(
                "MultiheadAttention: query, key and value must have shape (length, batch, "
                "features), the batch first with batch_first=True, or (length, features), with "
                f"{self.embed_dim}, {self.kdim} and {self.vdim} features; got {shapes[0]}, "
                f"{shapes[1]} and {shapes[2]}"
            )

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        for name, size, given in zip(
            ("embed_dim", "kdim", "vdim"), (self.embed_dim, self.kdim, self.vdim), (x, *others)
        ):
            found = last_axis(given, name, size, 0) if isinstance(given, Tensor) else None
            if found is not None:  # nobody can say what it would have given
                return Misfit(found.axis, found.what, found.own, found.wanted)
        return None


class SinusoidalPositionalEncoding(Module):
    """Adds waves of many lengths, by which positions are told apart (Vaswani and others, 2017).

    Feature 2 i of position p gets ``sin(p * base**(-2 i / embed_dim))``, feature 2 i + 1 the
    cosine.

    embed_dim: the size of the last axis. max_len: how many positions there are.
    dropout: the probability that an element of the sum is dropped in training.
    batch_first: whether inputs have shape (batch, length, embed_dim), and not (length, batch,
        embed_dim). device, dtype: of the table; the defaults if ``None``. It is not saved.

    Raises ValueError for sizes that are not positive integers, or another probability.
    """

    _shown = ("embed_dim", "max_len", "dropout", "batch_first")
    table: Tensor

    def __init__(
        self,
        embed_dim: int,
        max_len: int = 5000,
        dropout: float = 0.0,
        base: float = 10000.0,
        batch_first: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        name = "SinusoidalPositionalEncoding"
        check_sizes(name, embed_dim=embed_dim, max_len=max_len)
        check_probability(name, "dropout", dropout)
        self.embed_dim, self.max_len, self.dropout = embed_dim, max_len, dropout
        self.batch_first = batch_first
        angle = angles(arange(max_len, device=device), embed_dim, base)
        waves = reshape(stack([sin(angle), cos(angle)], axis=-1), (max_len, -1))[:, :embed_dim]
        kind = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
        self.register_buffer("table", waves.astype(kind), persistent=False)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """``x`` (L, N, embed_dim), (N, L, embed_dim) with batch_first, or (L, embed_dim).

        offset: the position of the first. Raises ShapeError for another shape, or more positions
        than there are.
        """
        axis = 1 if self.batch_first and len(x.shape) == 3 else 0
        if len(x.shape) not in (2, 3) or x.shape[-1] != self.embed_dim:
            raise ShapeError(
                "SinusoidalPositionalEncoding: the input must have shape (length, batch, "
                f"{self.embed_dim}), the batch first with batch_first=True, or (length, "
                f"{self.embed_dim}); got {x.shape}"
            )
        end = offset + x.shape[axis]
        if offset < 0 or end > self.max_len:
            raise ShapeError(
                f"SinusoidalPositionalEncoding: positions {offset} to {end - 1} are not among "
                f"max_len={self.max_len}"
            )
        waves = self.table[offset:end]
        y = x + (expand_dims(waves, 1) if len(x.shape) == 3 and not axis else waves)
        return dropout(y, self.dropout, self.training)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return last_axis(x, "embed_dim", self.embed_dim, self.embed_dim)


class RotaryEmbedding(Module):
    """Turns pairs of features of queries and keys by their positions (Su and others, 2021).

    dim: the features of a head, an even number. base, interleaved: see
        ``functional.rotary_embedding``.

    Raises ValueError for another ``dim``.
    """

    _shown = ("dim", "base", "interleaved")

    def __init__(self, dim: int, base: float = 10000.0, interleaved: bool = True) -> None:
        check_sizes("RotaryEmbedding", dim=dim)
        if dim % 2:
            raise ValueError(f"RotaryEmbedding: dim must be even, got {dim}")
        self.dim, self.base, self.interleaved = dim, base, interleaved

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """``x`` (..., L, dim), in its shape; ``offset`` is the position of the first."""
        if not x.shape or x.shape[-1] != self.dim:
            raise ShapeError(
                f"RotaryEmbedding: the last axis of the input must have size {self.dim}, got "
                f"{x.shape}"
            )
        return rotary_embedding(x, offset, self.base, self.interleaved)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return last_axis(x, "dim", self.dim, self.dim)
