"""BERT: a transformer that reads a text in both directions."""

from __future__ import annotations

from typing import Any

from tensorgrad.errors import ShapeError
from tensorgrad.nn import init
from tensorgrad.nn.containers import ModuleList
from tensorgrad.nn.embedding import Embedding
from tensorgrad.nn.layers import Dropout, Linear
from tensorgrad.nn.module import Module, check_sizes
from tensorgrad.nn.normalization import LayerNorm
from tensorgrad.ops.activations import gelu
from tensorgrad.ops.attention import scaled_dot_product_attention
from tensorgrad.ops.creation import arange
from tensorgrad.ops.elementwise import not_equal, tanh
from tensorgrad.ops.random import Generator
from tensorgrad.ops.shaping import reshape
from tensorgrad.tensor import Tensor

__all__ = ["BERT"]


class BERT(Module):
    """An encoder of tokens: each gives features that depend on all tokens of its text.

    vocab_size: how many tokens there are. hidden_size: features of a token.
    num_hidden_layers, num_attention_heads, intermediate_size: of the blocks.
    max_position_embeddings: the longest text. type_vocab_size: kinds of tokens, as those of a
    question and of its answer. dropout: in training. layer_norm_eps: see LayerNorm.
    device, dtype, generator: as in Linear.

    Devlin and others, "BERT: Pre-training of deep bidirectional transformers", 2019; the defaults
    are its smaller one's. Names of arguments, of parameters and initial values are those of Hugging
    Face's ``BertModel``. Raises ValueError for sizes that are not positive integers, or if
    num_attention_heads does not divide hidden_size.
    """

    _shown = ("vocab_size", "hidden_size")

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-12,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes(
            "BERT", vocab_size=vocab_size, hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers, num_attention_heads=num_attention_heads,
            intermediate_size=intermediate_size, max_position_embeddings=max_position_embeddings,
            type_vocab_size=type_vocab_size,
        )  # fmt: skip
        if hidden_size % num_attention_heads:
            raise ValueError(
                f"BERT: num_attention_heads must divide hidden_size, got {num_attention_heads} and "
                f"{hidden_size}"
            )
        how: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
        sizes = vocab_size, max_position_embeddings, type_vocab_size
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.embeddings = _Embeddings(sizes, hidden_size, dropout, layer_norm_eps, how)
        self.encoder = _Encoder(
            _Layer(
                hidden_size, num_attention_heads, intermediate_size, dropout, layer_norm_eps, how
            )
            for _ in range(num_hidden_layers)
        )
        self.pooler = _Pooler(hidden_size, how)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values: normal ones of deviation 0.02, biases 0."""
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                init.zeros_(p)
            elif "LayerNorm" not in name:
                init.normal_(p, std=0.02, generator=generator)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Integers (N, T) -> features of the tokens (N, T, hidden_size).

        attention_mask: (N, T), 0 or False where a text has ended. token_type_ids: integers (N, T);
        0 if ``None``.

        Raises ShapeError if T is larger than max_position_embeddings, or for other shapes.
        """
        for name, x in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if x is not None and x.shape != input_ids.shape:
                raise ShapeError(
                    f"BERT: {name} must have the shape of input_ids, {input_ids.shape}; "
                    f"got {x.shape}"
                )
        seen = None
        if attention_mask is not None:
            seen = not_equal(attention_mask, 0)[:, None, None, :]
        return self.encoder(self.embeddings(input_ids, token_type_ids), seen)

    def pool(self, features: Tensor) -> Tensor:
        """Features of a text (N, hidden_size) from what ``forward`` gave: of its first token."""
        return self.pooler(features)


class _Embeddings(Module):
    """The sum of what token, position and kind of token stand for, normalized."""

    def __init__(
        self,
        sizes: tuple[int, int, int],
        hidden_size: int,
        dropout: float,
        eps: float,
        how: dict[str, Any],
    ) -> None:
        self.word_embeddings = Embedding(sizes[0], hidden_size, **how)
        self.position_embeddings = Embedding(sizes[1], hidden_size, **how)
        self.token_type_embeddings = Embedding(sizes[2], hidden_size, **how)
        self.LayerNorm = LayerNorm(hidden_size, eps, device=how["device"], dtype=how["dtype"])
        self.dropout = Dropout(dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """(N, T) -> (N, T, hidden_size)."""
        length, most = input_ids.shape[-1], self.position_embeddings.num_embeddings
        if length > most:
            raise ShapeError(f"BERT: {length} tokens are more than max_position_embeddings={most}")
        x = self.word_embeddings(input_ids)
        x = x + self.position_embeddings(arange(length, device=input_ids.device))
        if token_type_ids is None:
            x = x + self.token_type_embeddings.weight[0]
        else:
            x = x + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(x))


class _Encoder(Module):
    """The blocks, one after the other."""

    def __init__(self, layers: Any) -> None:
        self.layer = ModuleList(layers)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """(N, T, hidden_size), in its shape; seen: (N, 1, 1, T)."""
        for layer in self.layer:
            x = layer(x, seen)
        return x


class _Layer(Module):
    """Attention and two linear layers; a norm after each is added to what came in."""

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        intermediate_size: int,
        dropout: float,
        eps: float,
        how: dict[str, Any],
    ) -> None:
        self.attention = _Attention(hidden_size, heads, dropout, eps, how)
        self.intermediate = _Dense(hidden_size, intermediate_size, how)
        self.output = _Output(intermediate_size, hidden_size, dropout, eps, how)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """(N, T, hidden_size), in its shape."""
        x = self.attention(x, seen)
        return self.output(gelu(self.intermediate(x)), x)


class _Attention(Module):
    """Each token attends to all of its text."""

    def __init__(
        self, hidden_size: int, heads: int, dropout: float, eps: float, how: dict[str, Any]
    ) -> None:
        self.self = _SelfAttention(hidden_size, heads, dropout, how)
        self.output = _Output(hidden_size, hidden_size, dropout, eps, how)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """(N, T, hidden_size), in its shape."""
        return self.output(self.self(x, seen), x)


class _SelfAttention(Module):
    """What the heads attend to, side by side."""

    def __init__(self, hidden_size: int, heads: int, dropout: float, how: dict[str, Any]) -> None:
        self.heads, self.dropout = heads, dropout
        self.query = Linear(hidden_size, hidden_size, **how)
        self.key = Linear(hidden_size, hidden_size, **how)
        self.value = Linear(hidden_size, hidden_size, **how)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """(N, T, hidden_size), in its shape."""
        n, length, width = x.shape
        shape = (n, length, self.heads, width // self.heads)
        q, k, v = (
            reshape(part(x), shape).swapaxes(1, 2) for part in (self.query, self.key, self.value)
        )
        p = self.dropout if self.training else 0.0
        y = scaled_dot_product_attention(q, k, v, seen, dropout_p=p)
        return reshape(y.swapaxes(1, 2), x.shape)


class _Dense(Module):
    """A linear layer, by the name that it has there."""

    def __init__(self, in_features: int, out_features: int, how: dict[str, Any]) -> None:
        self.dense = Linear(in_features, out_features, **how)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return self.dense(x)


class _Output(_Dense):
    """A linear layer whose result is added to what came in, and the norm of the sum."""

    def __init__(
        self, in_features: int, out_features: int, dropout: float, eps: float, how: dict[str, Any]
    ) -> None:
        super().__init__(in_features, out_features, how)
        self.LayerNorm = LayerNorm(out_features, eps, device=how["device"], dtype=how["dtype"])
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:  # type: ignore[override]
        """``x`` (N, T, in_features), ``before`` in the shape of the result."""
        return self.LayerNorm(before + self.dropout(self.dense(x)))


class _Pooler(_Dense):
    """Features of the first token, which stand for the text."""

    def __init__(self, hidden_size: int, how: dict[str, Any]) -> None:
        super().__init__(hidden_size, hidden_size, how)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, hidden_size) -> (N, hidden_size)."""
        return tanh(self.dense(x[:, 0]))
