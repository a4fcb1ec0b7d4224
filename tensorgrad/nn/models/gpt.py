"""GPT: a transformer that says what token comes next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tensorgrad.autograd.modes import no_grad
from tensorgrad.errors import ShapeError
from tensorgrad.nn import init
from tensorgrad.nn.activations import GELU
from tensorgrad.nn.attention import KeyValueCache
from tensorgrad.nn.containers import ModuleList
from tensorgrad.nn.embedding import Embedding
from tensorgrad.nn.evaluating import evaluating
from tensorgrad.nn.layers import Dropout, Linear
from tensorgrad.nn.module import Module, check_sizes
from tensorgrad.nn.normalization import LayerNorm
from tensorgrad.ops.attention import scaled_dot_product_attention
from tensorgrad.ops.creation import arange
from tensorgrad.ops.elementwise import log, where
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.ops.reductions import argmax
from tensorgrad.ops.shaping import concat, reshape, split
from tensorgrad.ops.sorting import topk
from tensorgrad.tensor import Tensor

__all__ = ["GPT"]


class GPT(Module):
    """A decoder of tokens: embeddings of token and position, blocks, logits of the next token.

    vocab_size: how many tokens there are. block_size: the longest sequence.
    n_layer, n_head, n_embd: of the blocks. dropout: in training.
    bias: False for linear layers and norms without.
    device, dtype, generator: as in Linear.

    Radford and others, "Language models are unsupervised multitask learners" (GPT-2), 2019: each
    block normalizes before it attends or computes. The output layer is the embedding of the tokens
    (Press and Wolf, 2017). Names of parameters and initial values are those of nanoGPT. Raises
    ValueError for sizes that are not positive integers, or if n_head does not divide n_embd.
    """

    _shown = ("vocab_size", "block_size")

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_layer: int = 4,
        n_head: int = 4,
        n_embd: int = 128,
        dropout: float = 0.0,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes(
            "GPT", vocab_size=vocab_size, block_size=block_size, n_layer=n_layer, n_head=n_head,
            n_embd=n_embd,
        )  # fmt: skip
        if n_embd % n_head:
            raise ValueError(f"GPT: n_head must divide n_embd, got {n_head} and {n_embd}")
        how: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
        self.vocab_size, self.block_size = vocab_size, block_size
        self.transformer = _Transformer(
            vocab_size, block_size, n_layer, n_head, n_embd, dropout, bias, how
        )
        self.lm_head = Linear(n_embd, vocab_size, bias=False, **how)
        self.lm_head.weight = self.transformer.wte.weight
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values: normal ones of deviation 0.02, less before each sum."""
        depth = len(self.transformer.h)
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                init.normal_(p, std=0.02 / math.sqrt(2 * depth), generator=generator)
            elif name.endswith("bias"):
                init.zeros_(p)
            elif ".ln_" not in name:
                init.normal_(p, std=0.02, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Integers (N, T) -> logits of the token after each (N, T, vocab_size).

        Raises ShapeError if T is larger than block_size.
        """
        return self.lm_head(self.transformer(tokens))

    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """``tokens`` (N, T), continued by ``max_new_tokens`` drawn one after another.

        temperature: what logits are divided by; 0 takes the likeliest token.
        top_k: draw from that many of the likeliest alone.
        generator: the source of the draws; the default one if ``None``.

        Keys and values of earlier tokens are kept, so that each further one costs one row. Beyond
        block_size the last block_size tokens count. Runs in evaluation mode and without gradients.
        Raises ShapeError for no tokens, ValueError for a negative temperature or top_k below 1.
        """
        if tokens.ndim != 2 or not tokens.shape[1]:
            raise ShapeError(f"GPT.generate: tokens must have shape (N, T), got {tokens.shape}")
        if temperature < 0 or (top_k is not None and top_k < 1):
            raise ValueError(
                "GPT.generate: temperature must be at least 0 and top_k at least 1, got "
                f"{temperature!r} and {top_k!r}"
            )
        with no_grad(), evaluating(self):
            caches = self.transformer.caches(tokens.shape[0])
            recent = tokens[:, -self.block_size :]
            for _ in range(max_new_tokens):
                logits = self.lm_head(self.transformer(recent, caches)[:, -1])
                new = drawn_tokens(logits, temperature, top_k, generator or default_generator)
                new = new.to(tokens.dtype)
                tokens = concat([tokens, new], axis=1)
                if tokens.shape[1] <= self.block_size:
                    recent = new
                else:  # each token has moved to another position
                    recent = tokens[:, -self.block_size :]
                    for cache in caches:
                        cache.reset()
        return tokens


def drawn_tokens(
    logits: Tensor, temperature: float, top_k: int | None, generator: Generator
) -> Tensor:
    """(N, C) -> (N, 1): one number for each row, with the options of ``GPT.generate``."""
    if temperature == 0:
        return argmax(logits, axis=-1, keepdims=True)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = topk(logits, top_k)[0][:, -1:]
        logits = where(logits < least, -math.inf, logits)
    # The largest of logits with Gumbel's noise is distributed as their softmax.
    even = generator.uniform(logits.shape, 2**-32, 1 - 2**-24, device=logits.device)
    return argmax(logits - log(-log(even)), axis=-1, keepdims=True)


class _Transformer(Module):
    """All but the output layer."""

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        dropout: float,
        bias: bool,
        how: dict[str, Any],
    ) -> None:
        self.n_head = n_head
        self.wte = Embedding(vocab_size, n_embd, **how)
        self.wpe = Embedding(block_size, n_embd, **how)
        self.drop = Dropout(dropout)
        self.h = ModuleList(_Block(n_head, n_embd, dropout, bias, how) for _ in range(n_layer))
        self.ln_f = LayerNorm(n_embd, bias=bias, device=how["device"], dtype=how["dtype"])

    def caches(self, batch_size: int) -> list[KeyValueCache]:
        """Empty ones, one for each block."""
        n_head, (most, n_embd) = self.n_head, self.wpe.weight.shape
        place: dict[str, Any] = {"device": self.wpe.weight.device, "dtype": self.wpe.weight.dtype}
        return [KeyValueCache(batch_size, n_head, most, n_embd // n_head, **place) for _ in self.h]

    def forward(self, tokens: Tensor, caches: Sequence[KeyValueCache] | None = None) -> Tensor:
        """(N, T) -> (N, T, n_embd); caches: what earlier tokens left, one for each block."""
        seen = 0 if caches is None else caches[0].length
        end, most = seen + tokens.shape[-1], self.wpe.num_embeddings
        if end > most:
            raise ShapeError(f"GPT: {end} tokens are more than block_size={most}")
        positions = arange(seen, end, device=tokens.device)
        x = self.drop(self.wte(tokens) + self.wpe(positions))
        for k, block in enumerate(self.h):
            x = block(x, None if caches is None else caches[k])
        return self.ln_f(x)


class _Block(Module):
    """Attention and two linear layers, each after a norm and added to what came in."""

    def __init__(
        self, n_head: int, n_embd: int, dropout: float, bias: bool, how: dict[str, Any]
    ) -> None:
        place = {name: how[name] for name in ("device", "dtype")}
        self.ln_1 = LayerNorm(n_embd, bias=bias, **place)
        self.attn = _CausalAttention(n_head, n_embd, dropout, bias, how)
        self.ln_2 = LayerNorm(n_embd, bias=bias, **place)
        self.mlp = _Mlp(n_embd, dropout, bias, how)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """(N, T, n_embd), in its shape."""
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class _CausalAttention(Module):
    """Each token attends to itself and those before it."""

    def __init__(
        self, n_head: int, n_embd: int, dropout: float, bias: bool, how: dict[str, Any]
    ) -> None:
        self.n_head = n_head
        self.c_attn = Linear(n_embd, 3 * n_embd, bias=bias, **how)
        self.c_proj = Linear(n_embd, n_embd, bias=bias, **how)
        self.dropout = dropout
        self.resid_dropout = Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """(N, T, n_embd), in its shape."""
        n, length, width = x.shape
        shape = (n, length, self.n_head, width // self.n_head)
        parts = split(self.c_attn(x), 3, axis=-1)
        q, k, v = (reshape(part, shape).swapaxes(1, 2) for part in parts)
        # A cache is filled by the first call and goes on token by token, which see all before.
        causal = cache is None or not cache.length
        if cache is not None:
            k, v = cache.append(k, v)
        p = self.dropout if self.training else 0.0
        y = scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=causal)
        return self.resid_dropout(self.c_proj(reshape(y.swapaxes(1, 2), x.shape)))


class _Mlp(Module):
    """Four times as wide inside."""

    def __init__(self, n_embd: int, dropout: float, bias: bool, how: dict[str, Any]) -> None:
        self.c_fc = Linear(n_embd, 4 * n_embd, bias=bias, **how)
        self.gelu = GELU()
        self.c_proj = Linear(4 * n_embd, n_embd, bias=bias, **how)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_embd), in its shape."""
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))
