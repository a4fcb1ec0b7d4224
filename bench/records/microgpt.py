"""A GPT of 4,192 parameters that learns names, one in each of 1,000 steps.

Sizes, initial values, optimizer and schedule are those of A. Karpathy's microgpt (2026): 27 tokens
(letters, and one that begins and ends a name), 16 positions, width 16, 4 heads, 1 layer, RMS norms
without weights, ReLU, Adam with betas 0.85 and 0.99 whose rate falls from 0.01 to 0.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from bench.records import turns
from bench.records.clock import Clock
from bench.records.contestants import Adam, Array, Maker

STEPS, RATE = 1_000, 0.01
TOKENS, PLACES, WIDTH, HEADS = 27, 16, 16, 4
ADAM = Adam(0.85, 0.99, 1e-8)
#: Names have 2 to 15 letters: so many lengths.
LENGTHS = 14


def parameters(seed: int) -> dict[str, Array]:
    """Normal ones of deviation 0.08."""
    draw = np.random.default_rng(seed)
    shapes = {
        "tokens": (TOKENS, WIDTH), "places": (PLACES, WIDTH), "head": (TOKENS, WIDTH),
        "query": (WIDTH, WIDTH), "key": (WIDTH, WIDTH), "value": (WIDTH, WIDTH),
        "out": (WIDTH, WIDTH), "inner": (4 * WIDTH, WIDTH), "outer": (WIDTH, 4 * WIDTH),
    }  # fmt: skip
    return {
        name: (0.08 * draw.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def examples(folder: Path, seed: int, padded: bool) -> list[tuple[Array, Array]]:
    """Tokens and those that follow them, of one name each; -1 where nothing is asked."""
    names = (folder / "names" / "names.txt").read_text().split()
    random.Random(seed).shuffle(names)
    found = []
    for name in names[:STEPS]:
        tokens = [TOKENS - 1, *(ord(letter) - ord("a") for letter in name), TOKENS - 1]
        length = min(PLACES, len(tokens) - 1)
        rest = PLACES - length if padded else 0
        found.append(
            (
                np.array(tokens[:length] + [0] * rest),
                np.array(tokens[1 : length + 1] + [-1] * rest),
            )
        )
    return found


def _normed(x: Any) -> Any:
    return x * ((x * x).mean(-1, keepdims=True) + 1e-5) ** -0.5


def logits(ops: Any, p: Any, tokens: Any) -> Any:
    """(T,) -> (T, 27)."""
    length = tokens.shape[0]
    x = _normed(p["tokens"][tokens] + p["places"][:length])
    y = _normed(x)
    shape = (length, HEADS, WIDTH // HEADS)
    q, k, v = (
        ops.linear(y, p[name]).reshape(shape).swapaxes(0, 1) for name in ("query", "key", "value")
    )
    y = ops.attention(q, k, v, is_causal=True)
    x = x + ops.linear(y.swapaxes(0, 1).reshape(length, WIDTH), p["out"])
    x = x + ops.linear(ops.relu(ops.linear(_normed(x), p["inner"])), p["outer"])
    return ops.linear(x, p["head"])


def loss(ops: Any, p: Any, tokens: Any, following: Any) -> Any:
    """The mean over the positions at which something is asked."""
    return ops.cross_entropy(logits(ops, p, tokens), following, ignore_index=-1)


def run(make: Maker, folder: Path, seed: int, clock: Clock, padded: bool) -> dict[str, Any]:
    """Train it, each loss read as its step is made; then, with all compiled, once more."""
    start = parameters(seed)
    names = examples(folder, seed, padded)
    training = make(start, loss, logits, ADAM, LENGTHS)
    return turns.run(training, names, lambda done: RATE * (1 - done), clock)
