"""GPT: a transformer that says which character comes next (Radford and others, 2019).

Each block normalizes before it attends and before its two dense layers, of which the first is four
times as wide, with ReLU; queries, keys and values have no biases, all other layers have. Two
variants learn quicker: ReLU that is squared (So and others, "Primer", 2021), and embeddings of each
pair of neighbours beside those of single characters, as sparse features for which no product is
computed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.records.contestants import Adam, Array, Maker, Parameters, Training


class Sizes(NamedTuple):
    """tokens: how many there are. context: the longest stretch, in tokens.

    pairs: each token and the one before it have an embedding too. squared: ReLU is squared.
    """

    tokens: int
    context: int
    width: int
    heads: int
    layers: int
    pairs: bool = False
    squared: bool = False


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The name of each parameter -> its shape; matrices have a row for each output."""
    width = sizes.width
    found: dict[str, tuple[int, ...]] = {
        "tokens": (sizes.tokens, width), "places": (sizes.context, width),
    }  # fmt: skip
    if sizes.pairs:
        found["pairs"] = (sizes.tokens**2, width)
    for k in range(sizes.layers):
        found |= {
            f"{k} norm1": (width,), f"{k} shift1": (width,),
            f"{k} attend": (3 * width, width),
            f"{k} mix": (width, width), f"{k} mix bias": (width,),
            f"{k} norm2": (width,), f"{k} shift2": (width,),
            f"{k} inner": (4 * width, width), f"{k} inner bias": (4 * width,),
            f"{k} outer": (width, 4 * width), f"{k} outer bias": (width,),
        }  # fmt: skip
    return found | {
        "norm": (width,), "shift": (width,),
        "head": (sizes.tokens, width), "head bias": (sizes.tokens,),
    }  # fmt: skip


def parameters(draw: np.random.Generator, sizes: Sizes, deviation: float) -> dict[str, Array]:
    """Matrices are normal ones of this deviation, norms one, and all else is zero."""
    return {
        name: (
            deviation * draw.standard_normal(shape) if len(shape) > 1
            else np.full(shape, float("norm" in name))
        ).astype(np.float32)
        for name, shape in shapes(sizes).items()
    }  # fmt: skip


def logits(sizes: Sizes, ops: Any, p: Any, tokens: Any) -> Any:
    """(N, T) -> (N T, tokens)."""
    n, length = tokens.shape
    width, heads = sizes.width, sizes.heads
    x = p["tokens"][tokens] + p["places"][:length]
    if sizes.pairs:  # the first token of a stretch has none before it
        paired = p["pairs"][tokens[:, :-1] * sizes.tokens + tokens[:, 1:]]
        x = ops.concat([x[:, :1], x[:, 1:] + paired], 1)

    def normed(x: Any, weight: str, bias: str) -> Any:
        return ops.layer_norm(x, (width,), p[weight], p[bias])

    for k in range(sizes.layers):
        y = ops.linear(normed(x, f"{k} norm1", f"{k} shift1"), p[f"{k} attend"])
        y = y.reshape(n, length, 3 * heads, width // heads).swapaxes(1, 2)
        y = ops.attention(y[:, :heads], y[:, heads:-heads], y[:, -heads:], is_causal=True)
        y = y.swapaxes(1, 2).reshape(n, length, width)
        x = x + ops.linear(y, p[f"{k} mix"], p[f"{k} mix bias"])
        y = ops.linear(
            normed(x, f"{k} norm2", f"{k} shift2"), p[f"{k} inner"], p[f"{k} inner bias"]
        )
        y = ops.relu(y)
        if sizes.squared:
            y = y * y
        x = x + ops.linear(y, p[f"{k} outer"], p[f"{k} outer bias"])
    x = normed(x, "norm", "shift").reshape(n * length, width)
    return ops.linear(x, p["head"], p["head bias"])


def loss(sizes: Sizes, ops: Any, p: Any, tokens: Any, following: Any) -> Any:
    """The mean over all N T tokens, in nats."""
    return ops.cross_entropy(logits(sizes, ops, p, tokens), following.reshape(-1))


def training_of(make: Maker, sizes: Sizes, parameters: Parameters, adam: Adam | None) -> Training:
    """One at its beginning."""
    return make(parameters, partial(loss, sizes), partial(logits, sizes), adam)
