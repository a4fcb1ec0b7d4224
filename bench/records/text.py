"""Tiny Shakespeare as numbers: 1,115,394 characters of plays, of which 65 differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.records.contestants import Array

#: The share of the text that is learned from; the rest is the validation's.
LEARNED = 0.9


def read(folder: Path) -> tuple[Array, Array, int]:
    """Characters to learn from and those after them, int64 (n,), and how many differ."""
    text = np.frombuffer((folder / "tinyshakespeare" / "input.txt").read_bytes(), np.uint8)
    kinds, numbers = np.unique(text, return_inverse=True)
    numbers = numbers.astype(np.int64)
    end = int(LEARNED * len(numbers))
    return numbers[:end], numbers[end:], len(kinds)


def stretches(text: Array, starts: Array, length: int) -> tuple[Array, Array]:
    """What begins at these places, and the character after each of its characters: (N, length)."""
    found = text[starts[:, None] + np.arange(length + 1)]
    return found[:, :-1].copy(), found[:, 1:].copy()
