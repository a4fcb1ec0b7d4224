"""Texts as word pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tensorgrad.data import DataFileError, WordPieceTokenizer

PIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "##afford", "a", "!",
    ",", "$", "東", "京", "ecole", "École", "cafe", "σασ", "I", "i",
]  # fmt: skip


@pytest.fixture
def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer(PIECES)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("unaffable", ["un", "##aff", "##able"]),
        ("unaffordable", ["un", "##afford", "##able"]),
        ("unaffordably", ["[UNK]"]),
        ("a,un!", ["a", ",", "un", "!"]),
        ("$a  \t\n a", ["$", "a", "a"]),
        ("École CAFE\u0301", ["ecole", "cafe"]),
        ("a東京a", ["a", "東", "京", "a"]),
        ("u\u200bn\x00 \ufffda", ["un", "a"]),
        ("a [MASK]a", ["a", "[MASK]", "a"]),
        ("[mask]", ["[UNK]", "[UNK]", "[UNK]"]),
        ("ΣΑΣ", ["σασ"]),  # by the letter: what is the last in a word is no other one
        ("a" * 101, ["[UNK]"]),
        ("", []),
    ],
)
def test_pieces(tokenizer: WordPieceTokenizer, text: str, pieces: list[str]) -> None:
    """The longest first; a word that has no pieces is unknown as a whole."""
    assert tokenizer.tokenize(text) == pieces


def test_case_may_be_kept() -> None:
    """With its accents."""
    tokenizer = WordPieceTokenizer(PIECES, lower=False)
    assert tokenizer.tokenize("École ecole I i") == ["École", "ecole", "I", "i"]


def test_a_batch_is_filled_up(tokenizer: WordPieceTokenizer) -> None:
    """The mask says where texts are; what is too long is cut off."""
    numbers, mask = tokenizer.encode(["a", "a a a a!", ""], max_length=5)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [[2, 9, 3, 0, 0], [2, 9, 9, 9, 3], [2, 3, 0, 0, 0]]
    assert mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5, [True] * 2 + [False] * 3]
    assert tokenizer.encode("a")[0].tolist() == [[2, 9, 3]]
    assert tokenizer.encode(["a", "a a"], pad_to_multiple_of=4)[0].shape == (2, 4)
    assert tokenizer.encode([])[0].shape == (0, 0)


def test_a_vocabulary_from_a_file(tmp_path: Path) -> None:
    """One piece a line, however lines end."""
    for end in ("\n", "\r\n"):
        (tmp_path / "vocab.txt").write_bytes(end.join([*PIECES, ""]).encode())
        tokenizer = WordPieceTokenizer(tmp_path / "vocab.txt")
        assert tokenizer.pieces == PIECES
        assert repr(tokenizer) == f"WordPieceTokenizer({len(PIECES)} pieces, lower=True)"


def test_what_is_no_vocabulary(tmp_path: Path) -> None:
    """Is named."""
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataFileError, match=r"vocab.txt: no UTF-8 text"):
        WordPieceTokenizer(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_text("some\nother\nlist\n")
    with pytest.raises(DataFileError, match=r"vocab.txt: there is no \[PAD\] among the pieces"):
        WordPieceTokenizer(tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match=r"there is no \[SEP\]"):
        WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "a"])
    with pytest.raises(ValueError, match="'a' is there twice"):
        WordPieceTokenizer([*PIECES, "a"])
    tokenizer = WordPieceTokenizer(PIECES)
    with pytest.raises(ValueError, match="max_length must be at least 2, got 1"):
        tokenizer.encode("a", 1)
    with pytest.raises(ValueError, match="pad_to_multiple_of must be at least 1, got 0"):
        tokenizer.encode("a", pad_to_multiple_of=0)
