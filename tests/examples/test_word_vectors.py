"""Words that stand in the same places get vectors that are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.cli import main
from tensorgrad.examples import word_vectors

GROUPS = [[f"{group}{letter}" for letter in "abcdef"] for group in ("cat", "sun", "ship", "tree")]


def written(path: Path, sentences: int) -> str:
    """Sentences of forty words, all of one group."""
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(GROUPS[rng.integers(4)], 40)) for _ in range(sentences)]
    path.write_text(".\n".join(lines))
    return str(path)


def test_a_text_becomes_numbers_of_words(tmp_path: Path) -> None:
    """The most frequent first; rare ones are left out; apostrophes count within words alone."""
    path = tmp_path / "text.txt"
    words = [f"w{letter}" for letter in "abcdefghijklmnopqrs"]
    path.write_text("Don't, don't! DON'T 'don't' don't don't once " + " ".join(words * 5), "utf-8")
    text = word_vectors.Text(str(path))
    assert text.words[0] == "don't"
    assert "once" not in text.words
    assert text.counts.tolist() == [6, *[5] * 19]
    assert text.numbers[:7].tolist() == [0] * 6 + [text.words.index("wa")]


def test_pairs_stand_near_one_another(tmp_path: Path) -> None:
    """Of a text whose words count upwards, no further apart than the window."""
    text = word_vectors.Text(written(tmp_path / "text.txt", 20))
    text.numbers, text.counts = np.arange(3000), np.ones(3000)
    word, near = next(word_vectors.pairs(text, 2, np.random.default_rng(0)))
    assert word.shape == (2048,)
    assert near.shape == (2048, 6)
    apart = np.abs(near[:, 0] - word)
    assert set(apart.tolist()) == {1, 2}
    assert 1.5 < (apart == 1).sum() / (apart == 2).sum() < 2.7  # one half reach no further than 1
    assert np.abs(near[:, 1:] - word[:, None]).mean() > 500


def test_words_of_one_group_are_neighbours(tmp_path: Path) -> None:
    text = word_vectors.Text(written(tmp_path / "text.txt", 500))
    tg.manual_seed(0)
    model = word_vectors.SkipGram(len(text.words), 16)
    assert word_vectors.fit(model, text, 600, 0, window=3) < 0.4
    right = 0
    for word in range(24):
        group = next(g for g in GROUPS if text.words[word] in g)
        right += sum(text.words[k] in group for k in word_vectors.neighbours(model, word, 5))
    assert right > 0.9 * 24 * 5


@pytest.mark.usefixtures("empty_folder")
def test_the_command_leaves_the_vectors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = word_vectors.fit
    monkeypatch.setattr(word_vectors, "fit", lambda m, text, steps, seed: fit(m, text, 3, seed))
    data = written(Path("text.txt"), 200)
    assert main(["demo", "word-vectors", "--data", data, "--out", "run"]) == 0
    assert "8,000 words, 24 different" in capsys.readouterr().out
    rows = Path("run/vectors.tsv").read_text().splitlines()
    assert len(rows) == 24
    assert all(len(row.split("\t")) == 65 for row in rows)
    assert main(["demo", "word-vectors", "--data", "none.txt", "--out", "other"]) == 2
