"""New names, letter by letter, by an RNN, an LSTM and a GPT: ``tensorgrad demo names``.

Each network reads the letters so far and says how likely each letter is to come next; a name is
drawn letter by letter until the network says that it ends. The three differ in how they remember:
by a state that each letter changes (RNN), by one with gates (LSTM), by looking back (GPT).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.data import DataFileError
from tensorgrad.files import read_utf8

Array = np.ndarray[Any, Any]

#: Before and after each name; its target beyond the end is left out of the loss.
_MARK, _NONE = 0, -100


class Recurrent(nn.Module):
    """Letters -> vectors -> a recurrent layer -> logits of the next letter."""

    def __init__(self, layer: type[nn.RNN | nn.LSTM], letters: int, width: int = 128) -> None:
        self.embedding = nn.Embedding(letters, width // 2)
        self.layer = layer(width // 2, width, batch_first=True)
        self.output = nn.Linear(width, letters)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        """Integers (N, T) -> logits (N, T, letters)."""
        return self.output(self.layer(self.embedding(x))[0])


class Names:
    """The names of a file, one in each line, as rows of numbers.

    inputs: int64 (names, longest + 1), each row the mark and the letters. targets: the letters and
    the mark. alphabet: the mark, and the letters.
    """

    def __init__(self, path: str) -> None:
        text = read_utf8(path)
        names = [line.strip().lower() for line in text.splitlines() if line.strip()]
        if len(names) < 20:
            raise DataFileError(path, f"{len(names)} names", "give 20 or more, one in each line")
        self.known = set(names)
        self.alphabet = ["\n", *sorted({letter for name in names for letter in name})]
        number = {letter: k for k, letter in enumerate(self.alphabet)}
        self.inputs = np.full((len(names), max(map(len, names)) + 1), _MARK)
        self.targets = np.full_like(self.inputs, _NONE)
        for row, target, name in zip(self.inputs, self.targets, names):
            row[1 : len(name) + 1] = target[: len(name)] = [number[letter] for letter in name]
            target[len(name)] = _MARK

    def networks(self) -> dict[str, Callable[[], nn.Module]]:
        """What makes each of the three, of about as many weights."""
        letters, longest = len(self.alphabet), self.inputs.shape[1]
        return {
            "RNN": lambda: Recurrent(nn.RNN, letters, 192),
            "LSTM": lambda: Recurrent(nn.LSTM, letters, 96),
            "GPT": lambda: nn.models.GPT(letters, longest, n_layer=2, n_head=4, n_embd=48),
        }


def cross_entropy(model: nn.Module, x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
    """What a letter costs, in nats, ends of names included."""
    logits = model(x)
    flat = logits.reshape(-1, logits.shape[-1])
    return nn.functional.cross_entropy(flat, t.reshape(-1), ignore_index=_NONE)


def fit(model: nn.Module, inputs: Array, targets: Array, steps: int, seed: int) -> None:
    """Train on batches of 64 names, with a rate that falls to zero."""
    optimizer = optim.AdamW(model.parameters(), lr=4e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    @tg.compile
    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model, x, t)
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(seed)
    for _ in range(steps):
        k = rng.integers(0, len(inputs), 64)
        step(tg.tensor(inputs[k]), tg.tensor(targets[k]))
        schedule.step()


def sample(model: nn.Module, names: Names, count: int, seed: int) -> list[str]:
    """``count`` names that the network draws, letter by letter, all of them side by side."""
    rng = np.random.default_rng(seed)
    rows = np.full((count, names.inputs.shape[1] + 1), _MARK)
    with tg.no_grad():
        for k in range(rows.shape[1] - 1):
            logits = model(tg.tensor(rows[:, :-1])).numpy()[:, k]
            # The largest of logits with Gumbel's noise is distributed as their softmax.
            rows[:, k + 1] = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    words = ("".join(names.alphabet[k] for k in row[1:]) for row in rows)
    return [word.partition("\n")[0] for word in words]


def run(folder: Path, seed: int, data: str) -> None:
    """Train the three on nine tenths; print their losses on the rest, and what they invent."""
    names = Names(data)
    order = np.random.default_rng(seed).permutation(len(names.inputs))
    inputs, targets = names.inputs[order], names.targets[order]
    kept = max(1, len(inputs) // 10)
    x, t = tg.tensor(inputs[:kept]), tg.tensor(targets[:kept])
    print(f"{len(inputs):,} names, {len(names.alphabet) - 1} letters; loss on {kept:,} held out")
    print(f"{'':<8}{'weights':>10}{'nats':>8}{'bits':>8}   for each letter")
    invented = {}
    for name, make in names.networks().items():
        tg.manual_seed(seed)
        model = make()
        fit(model, inputs[kept:], targets[kept:], 2000, seed)
        with tg.no_grad():
            loss = cross_entropy(model.eval(), x, t).item()
        weights = sum(p.size for p in model.parameters())
        print(f"{name:<8}{weights:>10,}{loss:>8.3f}{loss / math.log(2):>8.3f}")
        invented[name] = sample(model, names, 200, seed)
        nn.save_safetensors(model, folder / f"{name.lower()}.safetensors")
    for name, words in invented.items():
        new = [word for word in words if word not in names.known]
        print(f"{name}: {', '.join(new[:10])} ({len(new) / len(words):.0%} of 200 are new)")
