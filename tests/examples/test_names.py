"""Each of the three networks learns how names are made, and draws new ones."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.cli import main
from tensorgrad.examples import names


def written(path: Path, count: int) -> str:
    """Names of two or three syllables, each a consonant of four and a vowel of two."""
    rng = np.random.default_rng(0)
    lines = [
        "".join(
            rng.choice(list("bdkm")) + rng.choice(list("ao")) for _ in range(rng.integers(2, 4))
        )
        for _ in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_rows_hold_the_letters_and_the_end(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeffAda\n\n eve \n" + "bo\n" * 20, encoding="utf-8")
    found = names.Names(str(path))
    assert found.alphabet == ["\n", "a", "b", "d", "e", "o", "v"]
    assert found.inputs[0].tolist() == [0, 1, 3, 1]
    assert found.targets[0].tolist() == [1, 3, 1, 0]
    assert found.targets[2].tolist() == [2, 5, 0, -100]


@pytest.mark.usefixtures("empty_folder")
def test_the_command_needs_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "names", "--out", "run"]) == 2
    assert "needs --data" in capsys.readouterr().err
    Path("few.txt").write_text("ada\n")
    assert main(["demo", "names", "--data", "few.txt", "--out", "run"]) == 2
    assert "give 20 or more" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.usefixtures("empty_folder")
def test_all_three_learn_how_names_are_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nearly the loss of who knows the rule; and the names that they draw obey it."""
    fit = names.fit
    monkeypatch.setattr(names, "fit", lambda m, x, t, steps, seed: fit(m, x, t, 150, seed))
    data = written(Path("names.txt"), 500)
    assert main(["demo", "names", "--data", data, "--out", "run"]) == 0
    out = capsys.readouterr().out
    best = (2.5 * math.log(8) + math.log(2)) / 6  # 5 letters and the end, on average
    losses = re.findall(r"^(?:RNN|LSTM|GPT) +[\d,]+ +(\d\.\d+) +\d\.\d+$", out, re.M)
    assert len(losses) == 3
    assert all(best - 0.1 < float(loss) < best + 0.15 for loss in losses)
    drawn = re.findall(r"(?:: |, )([a-z]+)", " ".join(re.findall(r"^[A-Z]+: .*$", out, re.M)))
    assert sum(bool(re.fullmatch("([bdkm][ao]){2,3}", name)) for name in drawn) > len(drawn) / 2
    assert Path("run/gpt.safetensors").stat().st_size > 10_000


def test_names_are_drawn_as_often_as_the_network_says(tmp_path: Path) -> None:
    """By a network that was told the odds: a third of the first letters is a b."""
    data = names.Names(written(tmp_path / "names.txt", 50))

    class Odds(nn.Module):
        """The same odds after every letter."""

        def forward(self, x: tg.Tensor) -> tg.Tensor:
            odds = [0.0 if letter in "ao" else 1 / 3 for letter in data.alphabet[1:3]]
            share = tg.tensor([1 / 3, *odds, *[0.0] * (len(data.alphabet) - 3)])
            share = share + tg.tensor([0.0] * (len(data.alphabet) - 1) + [1 / 3])
            return tg.broadcast_to(tg.log(share + 1e-9), (*x.shape, len(data.alphabet)))

    drawn = names.sample(Odds(), data, 900, 0)
    for end in ("", "b", data.alphabet[-1]):
        assert 250 < sum(name[:1] == end for name in drawn) < 350
