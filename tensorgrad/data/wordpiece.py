"""Texts as word pieces, which BERT and its kin read."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from tensorgrad.files import DataFileError, open_regular

__all__ = ["WordPieceTokenizer"]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MOST = 100  # characters of a word; longer ones are unknown
#: Ideographs, which are words by themselves: first and last of each block.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class WordPieceTokenizer:
    """Cuts texts into the pieces of a vocabulary, the longest first (Wu and others, 2016).

    vocabulary: a file with one piece a line, as BERT's ``vocab.txt``, or the pieces themselves;
        the number of a piece is its place. Those that go on within a word begin with ``##``.
    lower: whether case and accents are removed, as "uncased" vocabularies want it.

    Raises OSError if the file cannot be read, DataFileError if it is no UTF-8 text; and that, or
    ValueError for pieces, if one of [PAD], [UNK], [CLS] and [SEP] is not there or a piece is twice.
    """

    def __init__(
        self, vocabulary: str | os.PathLike[str] | Sequence[str], lower: bool = True
    ) -> None:
        self.pieces = _pieces(vocabulary)
        self.lower = lower
        self._number = {piece: number for number, piece in enumerate(self.pieces)}
        wrong = self._what_is_wrong()
        if wrong and isinstance(vocabulary, str | os.PathLike):
            raise DataFileError(vocabulary, wrong, "take the vocab.txt that belongs to the model")
        if wrong:
            raise ValueError(f"WordPieceTokenizer: {wrong}")
        known = [re.escape(name) for name in _SPECIAL if name in self._number]
        self._special = re.compile(f"({'|'.join(known)})")

    def _what_is_wrong(self) -> str:
        for name in _SPECIAL[:4]:
            if name not in self._number:
                return f"there is no {name} among the pieces"
        if len(self._number) < len(self.pieces):
            twice = next(p for k, p in enumerate(self.pieces) if self._number[p] != k)
            return f"the piece {twice!r} is there twice"
        return ""

    def __len__(self) -> int:
        return len(self.pieces)

    def tokenize(self, text: str) -> list[str]:
        """The pieces of ``text``; [UNK] for a word that they do not make up."""
        found = []
        for part in self._special.split(text):
            if part in _SPECIAL and part in self._number:
                found.append(part)
            else:
                for word in _words(part, self.lower):
                    found += self._pieces_of(word)
        return found

    def encode(
        self,
        texts: str | Iterable[str],
        max_length: int | None = None,
        pad_to_multiple_of: int = 1,
    ) -> tuple[ndarray[Any, Any], ndarray[Any, Any]]:
        """The numbers of the pieces (N, T), between [CLS] and [SEP], and a mask (N, T).

        max_length: the most numbers of a text, with those two; what follows is cut off. T is the
        length of the longest; shorter texts end with [PAD], where the mask is False.
        pad_to_multiple_of: what T shall be a multiple of, if only a few T are wanted.

        Raises ValueError for a max_length below 2 or a pad_to_multiple_of below 1.
        """
        if pad_to_multiple_of < 1:
            raise ValueError(
                f"encode: pad_to_multiple_of must be at least 1, got {pad_to_multiple_of}"
            )
        if max_length is not None and max_length < 2:
            raise ValueError(f"encode: max_length must be at least 2, got {max_length}")
        most = None if max_length is None else max_length - 2
        rows = [
            ["[CLS]", *self.tokenize(text)[:most], "[SEP]"]
            for text in ([texts] if isinstance(texts, str) else texts)
        ]
        lengths = np.array([len(row) for row in rows], np.int64)
        width = -(-int(lengths.max(initial=0)) // pad_to_multiple_of) * pad_to_multiple_of
        numbers = np.full((len(rows), width), self._number["[PAD]"], np.int64)
        for place, row in zip(numbers, rows):
            place[: len(row)] = [self._number[piece] for piece in row]
        return numbers, np.arange(width) < lengths[:, None]

    def _pieces_of(self, word: str) -> list[str]:
        found: list[str] = []
        start = 0
        while start < len(word) <= _MOST:
            mark = "##" if start else ""
            for end in range(len(word), start, -1):
                if (piece := mark + word[start:end]) in self._number:
                    found.append(piece)
                    start = end
                    break
            else:
                return ["[UNK]"]
        return found or ["[UNK]"]

    def __repr__(self) -> str:
        return f"WordPieceTokenizer({len(self)} pieces, lower={self.lower})"


def _pieces(vocabulary: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    if not isinstance(vocabulary, str | os.PathLike):
        return list(vocabulary)
    with open_regular(vocabulary) as file:
        data = file.read()
    try:
        return [line.removesuffix("\r") for line in data.decode().removesuffix("\n").split("\n")]
    except UnicodeDecodeError as error:
        raise DataFileError(vocabulary, f"no UTF-8 text ({error})", "save it as UTF-8") from None


def _words(text: str, lower: bool) -> Iterator[str]:
    """Words, punctuation marks and ideographs."""
    kept = []
    for c in text:
        if c in "\t\n\r":
            kept.append(" ")
        elif c != "\ufffd" and unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs"):
            kept.append(f" {c} " if _is_ideograph(c) else c)
    text = "".join(kept)
    if lower:
        parts = unicodedata.normalize("NFD", text)
        text = "".join(c.lower() for c in parts if unicodedata.category(c) != "Mn")
    for word in text.split():
        start = 0
        for k, c in enumerate(word):
            if _is_punctuation(c):
                if start < k:
                    yield word[start:k]
                yield c
                start = k + 1
        if start < len(word):
            yield word[start:]


def _is_ideograph(c: str) -> bool:
    return c >= "\u3400" and any(first <= ord(c) <= last for first, last in _IDEOGRAPHS)


def _is_punctuation(c: str) -> bool:
    """Also the marks of ASCII that Unicode takes for symbols, as + and $."""
    if c.isascii():
        return c.isprintable() and not c.isalnum() and c != " "
    return unicodedata.category(c)[0] == "P"
