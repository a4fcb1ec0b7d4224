"""Which words are alike, told from a text alone: ``tensorgrad demo word-vectors``.

T. Mikolov and others, "Distributed representations of words and phrases and their
compositionality", 2013: skip-gram with negative sampling. Each word has a vector, and another one
for when it stands near a word. The product of the two says how likely they are to meet: it is
raised for those that do, and lowered for words drawn at random.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.data import DataFileError
from tensorgrad.files import read_utf8

Array = np.ndarray[Any, Any]

_NEGATIVES = 5  # words drawn at random for each that is met


class Text:
    """A text as numbers of words, which are counted from the most frequent on.

    Words that occur less than ``least`` times are left out. words: their texts. counts: how often
    each occurs. numbers: int64, the text.
    """

    def __init__(self, path: str, least: int = 5) -> None:
        text = read_utf8(path).lower()
        found = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text)
        frequent = [(w, n) for w, n in Counter(found).most_common() if n >= least]
        if len(frequent) < 20:
            raise DataFileError(
                path, f"{len(frequent)} words occur {least} times or more", "give a longer text"
            )
        self.words = [word for word, _ in frequent]
        self.counts = np.array([n for _, n in frequent])
        number = {word: k for k, word in enumerate(self.words)}
        self.numbers = np.array([number[word] for word in found if word in number])


class SkipGram(nn.Module):
    """A vector for each word, and one for each word that stands near."""

    def __init__(self, words: int, width: int = 64) -> None:
        self.word, self.near = nn.Embedding(words, width), nn.Embedding(words, width)
        nn.init.uniform_(self.word.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.near.weight)

    def forward(self, word: tg.Tensor, near: tg.Tensor) -> tg.Tensor:
        """Integers (N,) and (N, K) -> the product of each word with K others, (N, K)."""
        return (self.near(near) @ self.word(word)[:, :, None])[:, :, 0]


def pairs(text: Text, window: int, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """Batches of words, and of those met near each with ``_NEGATIVES`` others behind, for ever.

    Frequent words, which tell little, are left out at random; nearer words are met more often.
    """
    share = text.counts / text.counts.sum()
    keep = np.minimum(1, np.sqrt(1e-3 / share))
    odds = text.counts**0.75 / (text.counts**0.75).sum()
    while True:
        kept = text.numbers[rng.random(len(text.numbers)) < keep[text.numbers]]
        reach = rng.integers(1, window + 1, len(kept))
        ones, others = [], []
        for distance in range(1, window + 1):
            left, right = kept[:-distance], kept[distance:]
            ones += [left[reach[:-distance] >= distance], right[reach[distance:] >= distance]]
            others += [right[reach[:-distance] >= distance], left[reach[distance:] >= distance]]
        word, near = np.concatenate(ones), np.concatenate(others)
        order = rng.permutation(len(word))
        for k in np.array_split(order, -(-len(order) // 2048)):
            k = np.resize(k, 2048)  # batches of one size are one program
            drawn = rng.choice(len(odds), (len(k), _NEGATIVES), p=odds)
            yield word[k], np.concatenate([near[k, None], drawn], axis=1)


def fit(model: SkipGram, text: Text, steps: int, seed: int, window: int = 5) -> float:
    """Train; returns the mean loss of the last hundred steps."""
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    met = tg.tensor([[1.0, *[0.0] * _NEGATIVES]])

    @tg.compile
    def step(word: tg.Tensor, near: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        products = model(word, near)
        target = tg.broadcast_to(met, products.shape)
        loss = nn.functional.binary_cross_entropy_with_logits(products, target)
        loss.backward()
        optimizer.step()
        return loss

    batches = pairs(text, window, np.random.default_rng(seed))
    losses = []
    for _ in range(steps):
        word, near = next(batches)
        losses.append(step(tg.tensor(word), tg.tensor(near)).item())
        schedule.step()
    return float(np.mean(losses[-100:]))


def neighbours(model: SkipGram, word: int, count: int) -> list[int]:
    """The words whose vectors point in nearly the direction of that of ``word``, nearest first."""
    vectors = model.word.weight.detach().numpy()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.argsort(-(vectors @ vectors[word]))
    return [int(k) for k in order if k != word][:count]


def run(folder: Path, seed: int, data: str) -> None:
    """Train on a text; print the neighbours of frequent words, and leave the vectors."""
    text = Text(data)
    print(f"{len(text.numbers):,} words, {len(text.words):,} different ones that are frequent")
    tg.manual_seed(seed)
    model = SkipGram(len(text.words))
    loss = fit(model, text, 6000, seed)
    print(f"loss {loss:.3f}, and {np.log(2):.3f} at the beginning")
    telling = [k for k, word in enumerate(text.words) if k >= 60 and len(word) > 3]
    for k in telling[:14]:
        print(f"{text.words[k]:<10} {', '.join(text.words[j] for j in neighbours(model, k, 6))}")
    rows = ["\t".join(map("{:.5g}".format, row)) for row in model.word.weight.detach().numpy()]
    lines = [f"{word}\t{row}" for word, row in zip(text.words, rows)]
    (folder / "vectors.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    nn.save_safetensors(model, folder / "model.safetensors")
