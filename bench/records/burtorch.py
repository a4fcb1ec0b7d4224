"""The networks of BurTorch's tables, by plain gradient descent: 1,000 steps, and 1,000 more.

K. Burlachenko and P. Richtárik, "BurTorch: revisiting training from first principles by coupling
autodiff, math optimization, and systems", arXiv 2503.13795, 2025. Sizes and rates are those of its
programs (github.com/burlachenkok/burtorch), which take 1 to 64 examples at once. As many seconds as
the further steps take are milliseconds for one.

- An MLP on names (Bengio and others, 2003): from the 16 characters before, each 64 numbers, by a
  layer of tanh to the next of 27; 1,755 + 1,052 e parameters for e units. An example is a
  character, as there; the program for PyTorch takes whole names. Initial values are PyTorch's:
  there weights are uniform up to 1, whatever the inputs. At the rate of 0.1 single examples
  overshoot, the more so the more units there are; it changes no time.
- A GPT on Tiny Shakespeare: 8 characters, width 24, 6 layers of 6 heads, begun with a deviation of
  0.02. This is the program for PyTorch, with 46,337 parameters; that of BurTorch has no norm before
  the last layer, and so 48 fewer.

Chosen here: that nothing follows the last layer of the MLP, and that examples are drawn one by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.records import text, transformer, turns
from bench.records.clock import Clock
from bench.records.contestants import Array, Maker

STEPS = 1_000
TOKENS, CONTEXT, EMBEDDING = 27, 16, 64
MLP_RATE = 0.1
GPT = transformer.Sizes(65, 8, 24, 6, 6)
GPT_RATE, GPT_DEVIATION = 3e-4, 0.02


def mlp_parameters(draw: np.random.Generator, units: int) -> dict[str, Array]:
    """Those at the beginning."""
    found = {"embedding": draw.standard_normal((TOKENS, EMBEDDING))}
    for k, (n, inputs) in enumerate([(units, CONTEXT * EMBEDDING), (TOKENS, units)], 1):
        found |= {f"w{k}": draw.uniform(-1, 1, (n, inputs)), f"b{k}": draw.uniform(-1, 1, n)}
        for name in (f"w{k}", f"b{k}"):
            found[name] /= np.sqrt(inputs)
    return {name: a.astype(np.float32) for name, a in found.items()}


def mlp_logits(ops: Any, p: Any, tokens: Any) -> Any:
    """(N, 16) -> (N, 27)."""
    x = p["embedding"][tokens].reshape(tokens.shape[0], CONTEXT * EMBEDDING)
    return ops.linear(ops.tanh(ops.linear(x, p["w1"], p["b1"])), p["w2"], p["b2"])


def mlp_loss(ops: Any, p: Any, tokens: Any, following: Any) -> Any:
    """The mean over the examples, in nats."""
    return ops.cross_entropy(mlp_logits(ops, p, tokens), following)


def contexts(folder: Path) -> tuple[Array, Array]:
    """All of the names: the 16 characters before each (n, 16), and itself (n,); 0 is no letter."""
    names = (folder / "names" / "names.txt").read_text().split()
    before, following = [], []
    for name in names:
        letters = [ord(letter) - ord("a") + 1 for letter in name]
        padded = [0] * CONTEXT + letters
        before += [padded[k : k + CONTEXT] for k in range(len(letters) + 1)]
        following += [*letters, 0]
    return np.array(before), np.array(following)


def mlp(
    make: Maker, folder: Path, seed: int, clock: Clock, units: int, batch: int
) -> dict[str, Any]:
    """The MLP with so many units."""
    before, following = contexts(folder)
    draw = np.random.default_rng(seed)
    training = make(mlp_parameters(draw, units), mlp_loss, mlp_logits, None)
    rows = draw.integers(0, len(before), (STEPS, batch))
    batches = [(before[chosen], following[chosen]) for chosen in rows]
    return turns.run(training, batches, lambda done: MLP_RATE, clock)


def gpt(make: Maker, folder: Path, seed: int, clock: Clock, batch: int) -> dict[str, Any]:
    """The GPT."""
    learned, _, tokens = text.read(folder)
    sizes = GPT._replace(tokens=tokens)
    draw = np.random.default_rng(seed)
    start = transformer.parameters(draw, sizes, GPT_DEVIATION)
    training = transformer.training_of(make, sizes, start, None)
    starts = draw.integers(0, len(learned) - sizes.context, (STEPS, batch))
    batches = [text.stretches(learned, chosen, sizes.context) for chosen in starts]
    return turns.run(training, batches, lambda done: GPT_RATE, clock)
