"""A recurrent network that says which token of a text comes next."""

from __future__ import annotations

from typing import Any

from tensorgrad import nn
from tensorgrad.autograd.modes import no_grad
from tensorgrad.nn.evaluating import evaluating
from tensorgrad.nn.models.gpt import drawn_tokens
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.ops.shaping import concat
from tensorgrad.tensor import Tensor


class RecurrentLanguageModel(nn.Module):
    """An embedding, recurrent layers, and logits of the next token.

    kind: ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``. vocab_size: how many tokens there are.
    width: of the embedding and the states. layers: how many. dropout: between layers.
    """

    def __init__(self, kind: Any, vocab_size: int, width: int, layers: int, dropout: float) -> None:
        self.embedding = nn.Embedding(vocab_size, width)
        between = dropout if layers > 1 else 0.0
        self.core = kind(width, width, layers, batch_first=True, dropout=between)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Integers (N, T) -> logits of the token after each (N, T, vocab_size)."""
        found, _ = self.core(self.embedding(tokens))
        return self.head(self.drop(found))

    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """``tokens`` (N, T) continued, as by ``nn.models.GPT``; each token costs one step."""
        with no_grad(), evaluating(self):
            recent, states = tokens, None
            for _ in range(max_new_tokens):
                found, states = self.core(self.embedding(recent), states)
                logits = self.head(found[:, -1])
                recent = drawn_tokens(logits, temperature, top_k, generator or default_generator)
                recent = recent.to(tokens.dtype)
                tokens = concat([tokens, recent], axis=1)
        return tokens
